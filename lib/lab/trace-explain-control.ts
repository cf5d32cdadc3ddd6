/** Accesses to control registers in words (SDM volume 3, "Exit Qualification for Control-Register Accesses"). */
import { LabError } from '../base/error.js';
import type { TraceEvent } from '../hypervisor/trace-events.js';
import { CR0, CR4 } from '../isa/state.js';
import { type Because, hex } from './trace-explain-memory.js';

const NOFLUSH = 1n << 63n;

/** Names of the bits in which two values differ, with their new state: `+PGE -SMAP`. */
const changes = (bits: Readonly<Record<string, number>>, old: number, now: number): string => {
  const names = Object.entries(bits)
    .filter(([, bit]) => ((old ^ now) & bit) !== 0)
    .map(([name, bit]) => `${(now & bit) !== 0 ? '+' : '-'}${name.toUpperCase()}`);
  return names.length === 0 ? 'no bit that KVM knows changes' : names.join(' ');
};

const cr3 = (old: number, value: bigint, cr4: number): Because => {
  const pcid = (cr4 & CR4.pcide) !== 0;
  const table = (v: bigint): string =>
    `0x${hex(v & 0xf_ffff_ffff_f000n)}${pcid ? ` (PCID ${Number(v & 0xfffn)})` : ''}`;
  const kept = pcid && (value & NOFLUSH) !== 0n;
  const from = BigInt(old);
  const same = (from & ~0xfffn) === (value & 0xf_ffff_ffff_f000n);
  return {
    what: same
      ? `the guest loaded CR3 again with ${table(value)}`
      : `the guest wrote CR3 to switch from ${table(from)} to ${table(value)}`,
    why: `shadow paging needs to see every change of address space, to load the shadow tables that belong to it${
      kept
        ? '; bit 63 keeps its translations'
        : '; the load also tells that entries may have changed, so tables that are out of sync are brought up to date'
    }`,
  };
};

export const explainControl = (e: TraceEvent<'kvm_exit'>): Because => {
  const q = Number(BigInt.asUintN(32, e.info1));
  const cr = q & 15;
  const { cpu } = e;
  const { guest } = cpu;
  switch ((q >>> 4) & 3) {
    case 0: {
      const value = cpu.gpr((q >>> 8) & 15);
      const now = Number(BigInt.asUintN(32, value));
      if (cr === 3) return cr3(guest.cr3, value, guest.cr4);
      if (cr === 0)
        return {
          what: `the guest wrote 0x${hex(value)} to CR0 (${changes(CR0, guest.cr0, now)})`,
          why: "a bit changes that belongs to the host (CR0 guest/host mask): KVM keeps the guest's value in the read shadow and chooses the real one",
        };
      if (cr === 4)
        return {
          what: `the guest wrote 0x${hex(value)} to CR4 (${changes(CR4, guest.cr4, now)})`,
          why: 'a bit changes that belongs to the host (CR4 guest/host mask): KVM checks it against what the guest was offered and tells its MMU',
        };
      return {
        what: `the guest wrote 0x${hex(value)} to CR8`,
        why: 'the task priority of the local APIC is not virtualized here (CR8-load exiting)',
      };
    }
    case 1:
      return {
        what: `the guest read CR${cr}`,
        why:
          cr === 3
            ? "under shadow paging the real CR3 has KVM's tables, the guest must read its own value (CR3-store exiting)"
            : 'the task priority of the local APIC is not virtualized here (CR8-store exiting)',
      };
    case 2:
      return { what: 'the guest executed CLTS', why: 'CR0.TS belongs to the host (CR0 guest/host mask)' };
    case 3:
      return {
        what: `the guest executed LMSW with 0x${hex(q >>> 16)}`,
        why: 'a bit changes that belongs to the host (CR0 guest/host mask)',
      };
    default:
      throw new LabError('trace.explain', `0x${hex(q)} is no qualification of a control-register access`);
  }
};
