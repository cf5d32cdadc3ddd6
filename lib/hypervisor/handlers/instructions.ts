/**
 * Exits of the remaining instructions: CPUID, HLT, VMCALL, PAUSE, MONITOR/MWAIT, cache control, and those that stay
 * #UD (KVM's kvm_emulate_cpuid, kvm_emulate_halt, kvm_emulate_hypercall, handle_pause).
 */
import { GPR } from '../../isa/state.js';
import { labLeaf } from '../lab-leaves.js';
import { type Next, RESUME } from '../next.js';
import type { Vcpu } from '../vcpu.js';

const CPUID_FAULTING_MSR = 0x140;
const KVM_ENOSYS = 1000n;
const KVM_EPERM = 1n;

export const cpuid = (vcpu: Vcpu): Next => {
  const { vm } = vcpu;
  if (((vcpu.storedMsrs.get(CPUID_FAULTING_MSR) ?? 0n) & 1n) !== 0n && vcpu.cpl !== 0) {
    vcpu.injectGp();
    return RESUME;
  }
  const leaf = vcpu.gpr32(GPR.rax);
  const subleaf = vcpu.gpr32(GPR.rcx);
  const lab =
    leaf >= 0x4ffffffc && leaf <= 0x4fffffff
      ? labLeaf(vm.options.labLayout, leaf, subleaf, vm.hypervisor.counts, vm.log, vm.instructionTime)
      : undefined;
  const r =
    lab ??
    vm.cpuid.query(leaf, subleaf, {
      cr4: vcpu.cr4,
      xcr0: vcpu.xcr0,
      apicEnabled: vm.board.lapic.mode() !== 'disabled',
    });
  const { registers } = vcpu;
  registers.setGpr(GPR.rax, BigInt(r.eax));
  registers.setGpr(GPR.rbx, BigInt(r.ebx));
  registers.setGpr(GPR.rcx, BigInt(r.ecx));
  registers.setGpr(GPR.rdx, BigInt(r.edx));
  const traced = vm.trace.sinks.kvm_cpuid;
  if (traced !== undefined) {
    const { found, maxBasic } =
      lab === undefined ? vm.cpuid.lookup(leaf, subleaf) : { found: true, maxBasic: false };
    traced({
      function: leaf,
      index: subleaf,
      rax: r.eax >>> 0,
      rbx: r.ebx >>> 0,
      rcx: r.ecx >>> 0,
      rdx: r.edx >>> 0,
      found,
      used_max_basic: maxBasic,
    });
  }
  vcpu.skip();
  return RESUME;
};

export const hlt = (vcpu: Vcpu): Next => {
  vcpu.skip();
  vcpu.vm.stats.halt_exits++;
  vcpu.halted = true;
  return RESUME;
};

/** Hypercalls: a guest with one processor has no use for any of KVM's. */
export const vmcall = (vcpu: Vcpu): Next => {
  vcpu.vm.stats.hypercalls++;
  vcpu.vm.trace.sinks.kvm_hypercall?.({
    nr: vcpu.operand(GPR.rax),
    a0: vcpu.operand(GPR.rbx),
    a1: vcpu.operand(GPR.rcx),
    a2: vcpu.operand(GPR.rdx),
    a3: vcpu.operand(GPR.rsi),
  });
  const error = vcpu.cpl !== 0 ? KVM_EPERM : KVM_ENOSYS;
  vcpu.registers.setGpr(GPR.rax, BigInt.asUintN(vcpu.longCode ? 64 : 32, -error));
  vcpu.skip();
  return RESUME;
};

/** PAUSE-loop exit: the window grows, up to its limit; nobody else could run instead. */
export const pause = (vcpu: Vcpu): Next => {
  const { params } = vcpu.vm;
  if (params.ple_gap !== 0) {
    const grow = params.ple_window_grow;
    const next =
      grow < 1 ? params.ple_window : grow < params.ple_window ? vcpu.pleWindow * grow : vcpu.pleWindow + grow;
    const window = Math.min(next, params.ple_window_max);
    if (window !== vcpu.pleWindow) {
      vcpu.vm.trace.sinks.kvm_ple_window_update?.({ vcpu_id: 0, new: window, old: vcpu.pleWindow });
      vcpu.pleWindow = window;
      vcpu.pleWindowDirty = true;
    }
  }
  vcpu.skip();
  return RESUME;
};

/** MONITOR, MWAIT, INVD, WBINVD: nothing to do. */
export const nop = (vcpu: Vcpu): Next => {
  vcpu.skip();
  return RESUME;
};
