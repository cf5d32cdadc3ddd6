/** The guest's registers as text, for the log of a run that ends in a triple fault. */
import { SEG_NAMES } from '../isa/state.js';
import { VMCS } from '../vmx/port.js';
import { SEGMENT_FIELDS } from './cr.js';
import type { Vcpu } from './vcpu.js';

const GPR_NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'];
const hex = (v: bigint | number, digits: number): string => v.toString(16).padStart(digits, '0');

/** A line each: RIP and flags, general registers by four, segments, control registers and tables. */
export const registerDump = (vcpu: Vcpu): readonly string[] => {
  const { port } = vcpu;
  const lines = [`rip=${hex(vcpu.rip, 16)} rflags=${hex(vcpu.rflags, 8)} cpl=${vcpu.cpl}`];
  for (let i = 0; i < 16; i += 4) {
    const four = [i, i + 1, i + 2, i + 3].map((n) => `${GPR_NAMES[n] ?? `r${n}`}=${hex(vcpu.gpr(n), 16)}`);
    lines.push(four.join(' '));
  }
  for (const [i, f] of SEGMENT_FIELDS.entries()) {
    const limit = hex(port.vmread32(f.limit), 8);
    const selector = hex(port.vmread32(f.selector), 4);
    const rights = hex(port.vmread32(f.rights), 5);
    lines.push(
      `${SEG_NAMES[i]}=${selector} base=${hex(port.vmread(f.base), 16)} limit=${limit} attr=${rights}`,
    );
  }
  const table = (name: string, base: bigint, limit: number): string =>
    `${name}=${hex(base, 16)}+${hex(limit, 4)}`;
  lines.push(
    `cr0=${hex(vcpu.cr0, 8)} cr2=${hex(vcpu.registers.cr2, 16)} cr3=${hex(vcpu.cr3, 16)} cr4=${hex(vcpu.cr4, 8)} efer=${hex(vcpu.efer, 4)}`,
    `${table('gdtr', port.vmread(VMCS.guestGdtrBase), port.vmread32(VMCS.guestGdtrLimit))} ${table('idtr', port.vmread(VMCS.guestIdtrBase), port.vmread32(VMCS.guestIdtrLimit))}`,
  );
  return lines;
};
