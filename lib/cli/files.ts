/** Files that the commands read and write: checked before a long run starts, and written whole or not at all. */
import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import { LabError } from '../base/error.js';

const kindOf = (path: string): 'file' | 'folder' | 'nothing' => {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? 'nothing' : stat.isDirectory() ? 'folder' : 'file';
};

/** @throws LabError unless `file` can be read as a file; `option` is named in the message */
export const checkInput = (file: string, option: string): string => {
  const kind = kindOf(file);
  if (kind === 'nothing') throw new LabError('cli.file', `${option}: ${file} does not exist`);
  if (kind === 'folder') throw new LabError('cli.file', `${option}: ${file} is a folder, not a file`);
  return file;
};

export const readText = (file: string, option: string): string =>
  readFileSync(checkInput(file, option), 'utf8');

/** @throws LabError unless `file` can be written: its folder exists, and it is not a folder itself */
export const checkOutput = (file: string, option: string): string => {
  if (kindOf(file) === 'folder') throw new LabError('cli.file', `${option}: ${file} is a folder, not a file`);
  const folder = dirname(resolve(file));
  if (kindOf(folder) !== 'folder')
    throw new LabError('cli.file', `${option}: there is no folder ${folder} to write ${file} in`);
  return file;
};

const partOf = (file: string): string => `${file}.${process.pid}.part`;

const cannotWrite = (file: string, e: unknown): LabError =>
  new LabError('cli.file', `${file} could not be written: ${e instanceof Error ? e.message : String(e)}`);

/** Writes a file beside and moves it into place: a reader sees the old one or the whole new one. */
export const writeWhole = (file: string, text: string): void => {
  const part = partOf(file);
  try {
    writeFileSync(part, text);
    renameSync(part, file);
  } catch (e) {
    rmSync(part, { force: true });
    throw cannotWrite(file, e);
  }
};

/** A file that is written piece by piece and appears under its name when it is finished. */
export class WholeFile {
  readonly #file: string;
  readonly #handle: number;
  constructor(file: string) {
    this.#file = file;
    try {
      this.#handle = openSync(partOf(file), 'w');
    } catch (e) {
      throw cannotWrite(file, e);
    }
  }
  write(text: string): void {
    try {
      writeSync(this.#handle, text);
    } catch (e) {
      throw cannotWrite(this.#file, e);
    }
  }
  finish(): void {
    closeSync(this.#handle);
    renameSync(partOf(this.#file), this.#file);
  }
  discard(): void {
    closeSync(this.#handle);
    rmSync(partOf(this.#file), { force: true });
  }
}
