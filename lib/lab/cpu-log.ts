/**
 * The processor state as text, in the layout of QEMU's `-d cpu` log for x86-64, so that two traces can be compared line
 * by line. QEMU's CCS, CCD, CCO and HLT, A20, SMM fields have no meaning here and are printed as constants.
 */
import type { Cpu } from '../cpu/core.js';
import { readRflags } from '../cpu/rflags.js';
import { S, SEG } from '../isa/state.js';

const h = (v: bigint | number, digits: number): string => v.toString(16).padStart(digits, '0');
const ORDER = [
  ['RAX', 0],
  ['RBX', 3],
  ['RCX', 1],
  ['RDX', 2],
  ['RSI', 6],
  ['RDI', 7],
  ['RBP', 5],
  ['RSP', 4],
  ['R8 ', 8],
  ['R9 ', 9],
  ['R10', 10],
  ['R11', 11],
  ['R12', 12],
  ['R13', 13],
  ['R14', 14],
  ['R15', 15],
] as const;

/** The descriptor's high word from access rights and limit, as QEMU keeps it. */
const flagsWord = (cpu: Cpu, seg: number): number => {
  const attr = cpu.get32(S.segAttr + 4 * seg);
  const limit = cpu.get32(S.segLimit + 4 * seg);
  const top = (attr & 0x8000) !== 0 ? limit >>> 28 : (limit >>> 16) & 15;
  return (attr & 0x10000) !== 0 ? 0 : (((attr & 0xf0ff) << 8) | (top << 16)) >>> 0;
};

const segment = (cpu: Cpu, name: string, seg: number): string =>
  `${name}=${h(cpu.get32(S.segSel + 4 * seg), 4)} ${h(cpu.get64(S.segBase + 8 * seg), 16)} ${h(cpu.get32(S.segLimit + 4 * seg), 8)} ${h(flagsWord(cpu, seg), 8)}`;

/** One state, several lines, ending with a newline. */
export const cpuStateText = (cpu: Cpu): string => {
  const lines: string[] = [];
  for (let i = 0; i < 16; i += 4)
    lines.push(
      ORDER.slice(i, i + 4)
        .map(([n, r]) => `${n}=${h(cpu.gpr(r), 16)}`)
        .join(' '),
    );
  const f = readRflags(cpu);
  const letters = [...'DOSZAPC']
    .map((l, i) => ((f & [0x400, 0x800, 0x80, 0x40, 0x10, 4, 1][i]!) !== 0 ? l : '-'))
    .join('');
  lines.push(
    `RIP=${h(cpu.rip, 16)} RFL=${h(f, 8)} [${letters}] CPL=${cpu.get32(S.cpl)} II=${cpu.get32(S.interruptibility) & 1} A20=1 SMM=0 HLT=${cpu.get32(S.activity) & 1}`,
  );
  for (const [name, seg] of [
    ['ES ', SEG.es],
    ['CS ', SEG.cs],
    ['SS ', SEG.ss],
    ['DS ', SEG.ds],
    ['FS ', SEG.fs],
    ['GS ', SEG.gs],
    ['LDT', SEG.ldtr],
    ['TR ', SEG.tr],
  ] as const)
    lines.push(segment(cpu, name, seg));
  lines.push(`GDT=     ${h(cpu.get64(S.gdtrBase), 16)} ${h(cpu.get32(S.gdtrLimit), 8)}`);
  lines.push(`IDT=     ${h(cpu.get64(S.idtrBase), 16)} ${h(cpu.get32(S.idtrLimit), 8)}`);
  lines.push(
    `CR0=${h(cpu.get64(S.cr0), 8)} CR2=${h(cpu.get64(S.cr2), 16)} CR3=${h(cpu.get64(S.cr3), 16)} CR4=${h(cpu.get64(S.cr4), 8)}`,
  );
  lines.push(
    `DR0=${h(cpu.get64(S.dr), 16)} DR1=${h(cpu.get64(S.dr + 8), 16)} DR2=${h(cpu.get64(S.dr + 16), 16)} DR3=${h(cpu.get64(S.dr + 24), 16)} `,
  );
  lines.push(`DR6=${h(cpu.get64(S.dr6), 16)} DR7=${h(cpu.get64(S.dr7), 16)}`);
  lines.push(`EFER=${h(cpu.get64(S.efer), 16)}`);
  return `${lines.join('\n')}\n`;
};
