/** A difference, reduced to its last instruction where that one alone makes it, and as text. */
import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from 'iced-x86';
import { GPR_NAMES } from '../../lib/isa/state.js';
import { differences, equal } from '../hardware/compare.js';
import { AT } from '../hardware/layout.js';
import type { Machine } from '../hardware/machine.js';
import { instructionsOf } from '../hardware/masks.js';
import type { Native } from '../hardware/native.js';

const words = (bytes: Uint8Array): Uint32Array =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, AT.size / 4);

/** What a machine does otherwise than the processor: lines, or none. */
export const check = (
  machine: Machine,
  given: Uint8Array,
  expected: Uint8Array,
  out: Uint8Array,
): string[] => {
  machine.run(given, out);
  if (equal(given[AT.mode], words(expected), words(out))) return [];
  return differences(given, expected, out);
};

/** A case of the code `from` to `to` of another, beginning in the state of a result. */
const part = (given: Uint8Array, from: number, to: number, before: Uint8Array | undefined): Uint8Array => {
  const c = given.slice();
  if (before !== undefined) {
    c.set(before.subarray(0, AT.rip));
    c.set(before.subarray(AT.memory), AT.memory);
    c.fill(0, 8, 24);
  }
  c.fill(0, AT.code, AT.memory);
  c.set(given.subarray(AT.code + from, AT.code + to), AT.code);
  c[AT.length] = to - from;
  return c;
};

/** The smallest case found that shows a difference. */
export const reduce = async (native: Native, machine: Machine, given: Uint8Array): Promise<Uint8Array> => {
  const insns = instructionsOf(given);
  const out = new Uint8Array(AT.size);
  let before: Uint8Array | undefined;
  let start = 0;
  for (const [at, insn] of insns) {
    const end = at + insn.length;
    // from the start up to here, and this instruction alone
    const upto = part(given, 0, end, undefined);
    const expected = await native.run(upto, 1);
    if (check(machine, upto, expected, out).length > 0) {
      const alone = part(given, start, end, before);
      const answer = await native.run(alone, 1);
      return check(machine, alone, answer, out).length > 0 ? alone : upto;
    }
    const view = new DataView(expected.buffer);
    if (view.getInt32(AT.vector, true) >= 0) break;
    // a branch has gone elsewhere, or memory outside the windows is not what a case can begin with
    if (expected[AT.outside] !== 0) break;
    before = expected;
    start = end;
  }
  return given;
};

const disassemble = (given: Uint8Array): string => {
  const code = given.slice(AT.code, AT.code + given[AT.length]);
  const decoder = new Decoder(given[AT.mode], code, DecoderOptions.None);
  decoder.ip = new DataView(given.buffer, given.byteOffset).getBigUint64(AT.rip, true);
  const formatter = new Formatter(FormatterSyntax.Intel);
  const lines: string[] = [];
  while (decoder.canDecode) {
    const insn = decoder.decode();
    lines.push(insn.isInvalid ? '(bad)' : formatter.format(insn));
    insn.free();
  }
  decoder.free();
  formatter.free();
  return lines.join('; ');
};

/** A case and how a machine differs, as text. */
export const report = (name: string, given: Uint8Array, found: readonly string[]): string => {
  const view = new DataView(given.buffer, given.byteOffset);
  const code = Buffer.from(given.subarray(AT.code, AT.code + given[AT.length])).toString('hex');
  const gpr = GPR_NAMES.slice(0, given[AT.mode] === 64 ? 16 : 8)
    .map((r, i) => `${r}=${view.getBigUint64(AT.gpr + 8 * i, true).toString(16)}`)
    .join(' ');
  const fx = `fcw=${view.getUint16(0, true).toString(16)} fsw=${view.getUint16(2, true).toString(16)} ftw=${given[4].toString(16)} mxcsr=${view.getUint32(24, true).toString(16)}`;
  return [
    `${disassemble(given)}   (${code}, ${given[AT.mode]}-bit, on the ${name} engine)`,
    `  rflags=${view.getUint32(AT.rflags, true).toString(16)} ${gpr}`,
    `  ${fx}`,
    ...found.slice(0, 12).map((f) => `  ${f}`),
  ].join('\n');
};
