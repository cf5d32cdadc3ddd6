/** The registers that VM entry and exit leave alone, for the hypervisor's entry stub (`StubRegisters`). */
import type { Cpu } from '../cpu/core.js';
import { S } from '../isa/state.js';
import type { StubRegisters } from './port.js';

const drOffset = (i: 0 | 1 | 2 | 3 | 6): number => (i === 6 ? S.dr6 : S.dr + 8 * i);

export const stubRegisters = (cpu: Cpu): StubRegisters => ({
  gpr: (i) => cpu.gpr(i),
  setGpr: (i, v) => cpu.setGpr(i, BigInt.asUintN(64, v)),
  gpr32: (i) => cpu.get32(S.gpr + 8 * i),
  get cr2() {
    return cpu.get64(S.cr2);
  },
  set cr2(v) {
    cpu.set64(S.cr2, v);
  },
  get xcr0() {
    return cpu.get64(S.xcr0);
  },
  set xcr0(v) {
    cpu.set64(S.xcr0, v);
  },
  get cr8() {
    return cpu.get32(S.cr8);
  },
  set cr8(v) {
    cpu.set64(S.cr8, BigInt(v));
  },
  dr: (i) => cpu.get64(drOffset(i)),
  setDr: (i, v) => cpu.set64(drOffset(i), v),
  xmm: (i) => cpu.ram.u8.slice(cpu.at + S.xmm + 16 * i, cpu.at + S.xmm + 16 * i + 16),
  setXmm: (i, bytes) => cpu.ram.u8.set(bytes.subarray(0, 16), cpu.at + S.xmm + 16 * i),
});
