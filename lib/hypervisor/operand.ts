/** The memory operand of an instruction that exited, from the VM-exit instruction-information field (KVM's get_vmx_mem_address). */
import { SEG } from '../isa/state.js';
import { VMCS } from '../vmx/port.js';
import { SEGMENT_FIELDS } from './cr.js';
import type { Vcpu } from './vcpu.js';

/** Linear address of the operand: displacement (the exit qualification), base, index × scale, and the segment's base. */
export const memoryOperand = (vcpu: Vcpu): bigint => {
  const { port } = vcpu;
  const info = port.vmread32(VMCS.exitInstructionInfo);
  let offset = port.vmread(VMCS.exitQualification);
  // bits 22 and 27: no index, no base register
  if ((info & (1 << 27)) === 0) offset += vcpu.gpr((info >>> 23) & 15);
  if ((info & (1 << 22)) === 0) offset += vcpu.gpr((info >>> 18) & 15) << BigInt(info & 3);
  const width = [16, 32, 64, 64][(info >>> 7) & 3] as number;
  offset = BigInt.asUintN(width, offset);
  const segment = (info >>> 15) & 7;
  if (vcpu.longCode) {
    const base = segment === SEG.fs || segment === SEG.gs ? port.vmread(SEGMENT_FIELDS[segment].base) : 0n;
    return BigInt.asUintN(64, offset + base);
  }
  return BigInt.asUintN(32, offset + port.vmread(SEGMENT_FIELDS[segment as 0].base));
};
