/**
 * Draws paging tables as SVG: a box a table, its present entries as lines, an arrow from each entry to what it points
 * to. Lines of the same kind are drawn as one. Plain text out of plain data, so that tests can compare pictures.
 */
import { LEVEL_NAMES, type PageEntry, type PageTable } from './tables.js';

export interface DrawOptions {
  readonly title: string;
  /** Entries of the top table that are followed; the others are only named. Default: 0, user memory of small programs. */
  readonly slots?: readonly number[];
  /** What the other entries of the top table are, by index, like `{ 511: 'kernel' }`. */
  readonly names?: Readonly<Record<number, string>>;
}

const BOX = { width: 232, line: 17, head: 20, gap: 12, between: 40 } as const;
const COLOUR = {
  writable: '#2b8a3e',
  readOnly: '#d9480f',
  table: '#495057',
  mmio: '#862e9c',
  frame: '#868e96',
  unsync: '#c92a2a',
  head: '#e7f5ff',
  unsyncHead: '#ffe3e3',
} as const;

interface Line {
  readonly text: string;
  readonly colour: string;
  readonly child?: Box;
}
interface Box {
  readonly table: PageTable;
  readonly lines: readonly Line[];
  readonly height: number;
  /** Height of the box with everything to its right. */
  readonly span: number;
}

const escapeXML = (s: string): string =>
  s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
const hex = (n: number): string => `0x${n.toString(16)}`;

/** Rights as letters: write, user, execute, accessed, dirty; a dash for what is not there. */
export const rightsText = (e: PageEntry): string =>
  (
    [
      [e.write, 'w'],
      [e.user, 'u'],
      [e.execute, 'x'],
      [e.accessed, 'a'],
      [e.dirty, 'd'],
    ] as const
  )
    .map(([on, letter]) => (on ? letter : '-'))
    .join('');

const colourOf = (e: PageEntry): string =>
  e.kind === 'mmio'
    ? COLOUR.mmio
    : e.kind === 'table'
      ? COLOUR.table
      : e.write
        ? COLOUR.writable
        : COLOUR.readOnly;

const pageBytes = (level: number): number => 4096 * 512 ** (level - 1);

/** Whether an entry goes on where the one before it ended. */
const follows = (a: PageEntry, b: PageEntry, level: number): boolean =>
  a.kind === 'page' &&
  b.kind === 'page' &&
  b.index === a.index + 1 &&
  b.target === a.target + pageBytes(level) &&
  rightsText(a) === rightsText(b);

const linesOf = (table: PageTable, options: DrawOptions): Line[] => {
  const slots = options.slots ?? [0];
  const lines: Line[] = [];
  const { entries, level } = table;
  for (let i = 0; i < entries.length; i++) {
    const first = entries[i]!;
    let last = first;
    while (i + 1 < entries.length && follows(last, entries[i + 1]!, level)) last = entries[++i]!;
    const name = level === 4 ? options.names?.[first.index] : undefined;
    if (first.table !== undefined && (level < 4 || slots.includes(first.index))) {
      const text = `${first.index}  ${rightsText(first)}`;
      lines.push({ text, colour: colourOf(first), child: boxOf(first.table, options) });
    } else if (first.kind === 'table') {
      lines.push({ text: `${first.index}  ${name ?? '…'}`, colour: COLOUR.frame });
    } else {
      const range = last === first ? String(first.index) : `${first.index}–${last.index}`;
      const what = first.kind === 'mmio' ? 'MMIO' : hex(first.target);
      lines.push({ text: `${range}  ${rightsText(first)} → ${what}`, colour: colourOf(first) });
    }
  }
  return lines.length === 0 ? [{ text: 'nothing present', colour: COLOUR.frame }] : lines;
};

const boxOf = (table: PageTable, options: DrawOptions): Box => {
  const lines = linesOf(table, options);
  const height = BOX.head + lines.length * BOX.line + 5;
  const below = lines.reduce(
    (sum, l) => sum + (l.child === undefined ? 0 : l.child.span + BOX.gap),
    -BOX.gap,
  );
  return { table, lines, height, span: Math.max(height, below) };
};

const headOf = (table: PageTable): string => {
  const { shadow } = table;
  const at = `${LEVEL_NAMES[table.level] ?? ''} ${hex(table.at)}`;
  if (shadow === undefined) return at;
  const of = shadow.direct ? 'direct' : `of ${hex(shadow.gfn * 4096)}`;
  return `${at} ${of}${shadow.unsync ? ' unsync' : ''}`;
};

const drawBox = (box: Box, x: number, y: number, out: string[]): void => {
  const unsync = box.table.shadow?.unsync === true;
  const line = unsync
    ? `stroke="${COLOUR.unsync}" stroke-width="2" stroke-dasharray="5 3"`
    : 'stroke="#adb5bd"';
  out.push(
    `<rect x="${x}" y="${y}" width="${BOX.width}" height="${box.height}" rx="3" fill="white" ${line}/>`,
    `<rect x="${x + 1}" y="${y + 1}" width="${BOX.width - 2}" height="${BOX.head - 2}" fill="${unsync ? COLOUR.unsyncHead : COLOUR.head}"/>`,
    `<text x="${x + 7}" y="${y + 14}" font-weight="bold">${escapeXML(headOf(box.table))}</text>`,
  );
  let below = y;
  for (const [i, l] of box.lines.entries()) {
    const base = y + BOX.head + (i + 1) * BOX.line - 4;
    out.push(
      `<text x="${x + 7}" y="${base}" fill="${l.colour}" xml:space="preserve">${escapeXML(l.text)}</text>`,
    );
    if (l.child === undefined) continue;
    const [fromX, fromY] = [x + BOX.width, base - 4];
    const [toX, toY] = [fromX + BOX.between, below + BOX.head / 2];
    const middle = (fromX + toX) / 2;
    out.push(
      `<path d="M${fromX} ${fromY}C${middle} ${fromY} ${middle} ${toY} ${toX - 5} ${toY}" fill="none" stroke="#868e96" marker-end="url(#vmxlab-arrow)"/>`,
    );
    drawBox(l.child, toX, below, out);
    below += l.child.span + BOX.gap;
  }
};

/** One tree of tables. @returns an SVG element */
export const drawTables = (root: PageTable, options: DrawOptions): string => {
  const box = boxOf(root, options);
  const out: string[] = [];
  const top = 30;
  drawBox(box, 1, top, out);
  const width = 4 * BOX.width + 3 * BOX.between + 2;
  const height = top + box.span + 4;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" style="max-width:100%;height:auto" font-family="ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="11.5" class="vmxlab-tables">
<defs><marker id="vmxlab-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#868e96"/></marker></defs>
<text x="1" y="16" font-family="sans-serif" font-size="14" font-weight="bold">${escapeXML(options.title)}</text>
${out.join('\n')}
</svg>`;
};

/** Every entry of a tree that maps a page, with the linear address; in order. */
export const leavesOf = (table: PageTable): { readonly address: bigint; readonly entry: PageEntry }[] =>
  table.entries.flatMap((entry) =>
    entry.table !== undefined
      ? leavesOf(entry.table)
      : [{ address: table.base + (BigInt(entry.index) << BigInt(3 + 9 * table.level)), entry }],
  );

/** All tables of a tree, the root first. */
export const tablesIn = (table: PageTable): PageTable[] => [
  table,
  ...table.entries.flatMap((e) => (e.table === undefined ? [] : tablesIn(e.table))),
];
