/**
 * The VMCS as text: every field that exists, by area, control words with the names of their bits, and the rule that a
 * failed entry broke. The layout follows the SDM's order of areas; see also the kernel's `dump_vmcs`.
 */
import { hex } from '../base/bits.js';
import { CONTROL_WORDS, CONTROLS, type WordName } from './controls.js';
import type { BrokenRule } from './entry.js';
import { EXIT_REASONS } from './exit-reasons.js';
import { FIELDS, type FieldKind, type FieldRow, ROW } from './fields.js';
import { type CurrentVmcs, exists } from './vmcs.js';

const AREAS: readonly (readonly [FieldKind, string])[] = [
  ['guest', 'guest state'],
  ['host', 'host state'],
  ['control', 'controls'],
  ['info', 'exit information'],
];
const DIGITS = { u16: 4, u32: 8, u64: 16, nat: 16 } as const;

/** Names of the set bits of a control word; reserved bits by number. */
export const describeControls = (word: WordName, value: number): string => {
  const { default1 } = CONTROL_WORDS[word];
  const names: string[] = [];
  for (let bit = 0; bit < 32; bit++) {
    if (((value >>> bit) & 1) === 0) continue;
    const row = CONTROLS.find((c) => c.word === word && c.bit === bit);
    if (row !== undefined) names.push(row.sdm);
    else if (((default1 >>> bit) & 1) === 0) names.push(`bit ${bit}`);
  }
  return names.join(', ');
};

/** The reason's name, and whether the entry failed. */
export const describeExitReason = (reason: number): string => {
  const row = EXIT_REASONS[reason & 0xffff];
  return row === undefined || row.sdm === '' ? 'undefined' : row.sdm;
};

const WORD_OF = new Map<string, WordName>(
  Object.entries(CONTROL_WORDS).map(([word, { field }]) => [field, word as WordName]),
);

const line = (vmcs: CurrentVmcs, f: FieldRow): string => {
  const value = vmcs.big(f.row);
  const word = WORD_OF.get(f.name);
  let note = '';
  if (word !== undefined) note = describeControls(word, Number(value));
  else if (f.row === ROW.exitReason) note = describeExitReason(Number(value));
  return `  ${hex(f.encoding, 4)} ${f.name.padEnd(30)} ${hex(value, DIGITS[f.width])}${note === '' ? '' : `  ${note}`}`;
};

export const describe = (vmcs: CurrentVmcs, broken: BrokenRule | undefined): string => {
  const { current } = vmcs;
  if (current === undefined) return 'no current VMCS';
  const state = current.launched ? 'launched' : 'clear';
  const lines = [
    `VMCS at ${hex(current.hpa)}, ${state}${vmcs.live === current ? ', guest state in the processor' : ''}`,
  ];
  if (broken !== undefined) lines.push(`the last VM entry failed: ${broken.says} (${broken.id})`);
  for (const [kind, title] of AREAS) {
    lines.push(`${title}:`);
    for (const f of FIELDS) if (f.kind === kind && exists(f.row)) lines.push(line(vmcs, f));
  }
  return lines.join('\n');
};
