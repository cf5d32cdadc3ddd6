/** All helpers of the system instructions, under the names that `isa/insns/{system,transfer,io,vmx}.ts` call. */
import type { HelperTable } from '../helpers.js';
import { CONTROL_REGISTER_HELPERS } from './control-registers.js';
import { CPUID_HELPERS } from './cpuid.js';
import { DEBUG_REGISTER_HELPERS } from './debug-registers.js';
import { DESCRIPTOR_TABLE_HELPERS } from './descriptor-tables.js';
import { FAR_HELPERS } from './far.js';
import { INTERRUPT_HELPERS } from './interrupts.js';
import { INVALIDATE_HELPERS } from './invalidate.js';
import { IO_HELPERS } from './io.js';
import { IRET_HELPERS } from './iret.js';
import { MSR_HELPERS } from './msrs.js';
import { SEGMENT_HELPERS } from './segments.js';
import { STACK_HELPERS } from './stack.js';
import { SYSCALL_HELPERS } from './syscalls.js';
import { VERIFY_HELPERS } from './verify.js';
import { VMX_INSTRUCTION_HELPERS } from './vmx-instructions.js';

export const SYSTEM_HELPERS: HelperTable = {
  ...CONTROL_REGISTER_HELPERS,
  ...CPUID_HELPERS,
  ...DEBUG_REGISTER_HELPERS,
  ...DESCRIPTOR_TABLE_HELPERS,
  ...FAR_HELPERS,
  ...INTERRUPT_HELPERS,
  ...INVALIDATE_HELPERS,
  ...IO_HELPERS,
  ...IRET_HELPERS,
  ...MSR_HELPERS,
  ...SEGMENT_HELPERS,
  ...STACK_HELPERS,
  ...SYSCALL_HELPERS,
  ...VERIFY_HELPERS,
  ...VMX_INSTRUCTION_HELPERS,
};
