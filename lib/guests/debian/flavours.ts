/** The Debian guests by name: which kernel package, for which architecture. */

/** A Debian guest: which kernel, for which architecture. Each has a folder of its own under `data/`. */
export interface DebianFlavour {
  readonly architecture: 'amd64' | 'i386';
  /** Metapackage whose dependency is the kernel. */
  readonly kernel: string;
}

/** By guest name. */
export const DEBIAN_FLAVOURS = {
  debian: { architecture: 'amd64', kernel: 'linux-image-cloud-amd64' },
  'debian-686-pae': { architecture: 'i386', kernel: 'linux-image-686-pae' },
  'debian-686': { architecture: 'i386', kernel: 'linux-image-686' },
} as const satisfies Readonly<Record<string, DebianFlavour>>;
export type DebianName = keyof typeof DEBIAN_FLAVOURS;
export const DEBIAN_NAMES = Object.keys(DEBIAN_FLAVOURS) as readonly DebianName[];
