/** Guest memory as a picture: one dot a frame of 4 KiB, coloured by what it is to the shadow MMU. */
import type { FrameUse } from './tables.js';

/** Colour and meaning, in the order of the legend. */
export const FRAME_COLOURS: Readonly<Record<FrameUse, { readonly colour: string; readonly says: string }>> = {
  'upper table': { colour: '#862e9c', says: 'page table of level 2 to 4: every write exits' },
  table: { colour: '#1971c2', says: 'page table of level 1, write-protected' },
  'unsync table': { colour: '#e03131', says: 'page table of level 1, unsync: writes are free' },
  page: { colour: '#74b816', says: 'mapped by an entry of 4 KiB' },
  'large page': { colour: '#d8f5a2', says: 'mapped by an entry of 2 MiB' },
  unused: { colour: '#f1f3f5', says: 'not mapped yet' },
};

const COLUMNS = 256;
const DOT = 3;

/** @returns an SVG element, 256 frames (1 MiB) a line, from address 0 at the top left */
export const drawFrames = (uses: readonly FrameUse[], title: string): string => {
  const rows = Math.ceil(uses.length / COLUMNS);
  const out: string[] = [];
  for (let row = 0; row < rows; row++) {
    for (let x = 0; x < COLUMNS; ) {
      const use = uses[row * COLUMNS + x];
      let end = x + 1;
      while (end < COLUMNS && uses[row * COLUMNS + end] === use) end++;
      if (use !== undefined && use !== 'unused')
        out.push(
          `<rect x="${x * DOT}" y="${row * DOT}" width="${(end - x) * DOT}" height="${DOT}" fill="${FRAME_COLOURS[use].colour}"/>`,
        );
      x = end;
    }
  }
  const counts = new Map<FrameUse, number>();
  for (const use of uses) counts.set(use, (counts.get(use) ?? 0) + 1);
  const [width, height] = [COLUMNS * DOT, rows * DOT];
  const legend = (Object.keys(FRAME_COLOURS) as FrameUse[]).map((use, i) => {
    const { colour, says } = FRAME_COLOURS[use];
    const [x, y] = [(i % 2) * (width / 2), height + 16 + Math.floor(i / 2) * 20];
    const count = (counts.get(use) ?? 0).toLocaleString('en-US');
    return `<rect x="${x}" y="${y}" width="12" height="12" fill="${colour}" stroke="#adb5bd"/><text x="${x + 18}" y="${y + 10.5}">${count} ${says}</text>`;
  });
  const top = 28;
  const full = top + height + 82;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width + 2} ${full}" width="${width + 2}" height="${full}" style="max-width:100%;height:auto" font-family="sans-serif" font-size="12" class="vmxlab-frames">
<text x="0" y="16" font-size="14" font-weight="bold">${title.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>
<g transform="translate(1 ${top})" shape-rendering="crispEdges"><rect width="${width}" height="${height}" fill="${FRAME_COLOURS.unused.colour}" stroke="#adb5bd"/>${out.join('')}</g>
<g transform="translate(1 ${top})">${legend.join('')}</g>
</svg>`;
};
