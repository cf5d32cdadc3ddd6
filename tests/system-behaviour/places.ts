/** Where a world can run: real mode has no shadow paging, since it needs an unrestricted guest. */
import type { Place } from './machine.js';
import type { World } from './worlds.js';

export const placesOf = (w: World): readonly Place[] =>
  w.kind === 'real' ? ['bare', 'ept'] : ['bare', 'ept', 'shadow'];
