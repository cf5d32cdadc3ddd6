/** Where things are: everything is relative to the checkout (or the installed package). */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json. This file is `dist/lab/paths.js` or `lib/lab/paths.ts`. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const DATA = join(ROOT, 'data');
/** Debian's packages, unpacked; the folder of a guest by its name. */
export const DEBIAN = join(DATA, 'debian');
export const debianFolder = (name: string): string => join(DATA, name);
export const REPORTS = join(DATA, 'report');
export const NOTEBOOKS = join(ROOT, 'notebooks');
export const JUPYTER = join(ROOT, 'lib', 'jupyter');
