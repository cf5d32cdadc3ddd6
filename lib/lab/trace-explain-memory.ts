/** Page faults and EPT violations in words (SDM volume 3, "Page-Fault Exceptions", "Exit Qualification for EPT Violations"). */
import type { TraceEvent } from '../hypervisor/trace-events.js';
import { PF } from '../isa/state.js';

/** What the guest did, and why that is an exit. */
export interface Because {
  readonly what: string;
  readonly why: string;
}

export const hex = (v: bigint | number): string => v.toString(16);

const MODES = ['read', 'write', 'instruction fetch'] as const;
const mode = (write: boolean, fetch: boolean): string => MODES[fetch ? 2 : write ? 1 : 0];

/** #PF under shadow paging, or with EPT when the exception bitmap has it. */
export const pageFault = (e: TraceEvent<'kvm_exit'>, ept: boolean): Because => {
  const code = e.error_code;
  const who = (code & PF.u) !== 0 ? 'user' : 'supervisor';
  const what = `a ${who} ${mode((code & PF.w) !== 0, (code & PF.i) !== 0)} of 0x${hex(e.info1)} faulted, ${
    (code & PF.rsvd) !== 0
      ? 'at an entry with a reserved bit'
      : (code & PF.p) !== 0
        ? 'at an entry that does not permit it'
        : 'without an entry'
  }`;
  if (ept) return { what, why: 'the exception bitmap has #PF' };
  if ((code & PF.rsvd) !== 0)
    return {
      what,
      why: 'under shadow paging KVM marks pages of devices with entries that must fault, recognizes them at once and emulates the access',
    };
  return {
    what,
    why:
      (code & PF.p) !== 0
        ? "under shadow paging KVM looks into the guest's own tables whether the guest forbids it (then the fault is the guest's), or it was withheld, to see writes to page tables and first writes to clean pages"
        : "under shadow paging the processor walks KVM's tables, and KVM looks into the guest's own whether the page is missing there too (then the fault is the guest's) or only in the shadow",
  };
};

/** Bits of the qualification: the access, the rights that were there, and what was being translated. */
const Q = { write: 2n, fetch: 4n, rights: 0x38n, linear: 0x80n, final: 0x100n } as const;

export const eptViolation = (e: TraceEvent<'kvm_exit'>): Because => {
  const q = e.info1;
  const access = mode((q & Q.write) !== 0n, (q & Q.fetch) !== 0n);
  const gpa = hex(e.cpu.field('guestPhysicalAddress'));
  const linear =
    (q & Q.linear) === 0n
      ? ''
      : (q & Q.final) !== 0n
        ? ` (linear 0x${hex(e.cpu.field('guestLinearAddress'))})`
        : `, a page table of the guest on the way to linear 0x${hex(e.cpu.field('guestLinearAddress'))}`;
  const had = [...'rwx'].map((c, i) => ((q & (8n << BigInt(i))) !== 0n ? c : '-')).join('');
  const absent = (q & Q.rights) === 0n;
  return {
    what: `${access === 'instruction fetch' ? 'an' : 'a'} ${access} of guest-physical 0x${gpa}${linear}, ${absent ? 'which EPT does not map' : `which EPT maps ${had}`}`,
    why: absent
      ? 'KVM gives the guest memory when it first touches it, as large a page as the host has; where there is no memory, a device answers'
      : 'the EPT entry lacks the right: KVM looks whether to grant it',
  };
};
