/**
 * The page walk: linear to host-physical address, through guest paging and, in a guest with EPT, through EPT at every
 * step.
 *
 * SDM volume 3, "Paging": "Hierarchical Paging Structures", "Access Rights", "Page-Fault Exceptions", "Accessed and
 * Dirty Flags"; "EPT Translation Mechanism". There are no paging-structure caches, so a walk of 4 KiB pages makes 4
 * references, through EPT 24. Accessed and dirty bits are written only when the whole translation has succeeded.
 * The PDPTEs of PAE paging are registers, loaded with CR3; the caller gives the one that the address selects.
 */
import { CR0, CR4, EFER, PF } from '../isa/state.js';
import { ACCESS } from './access.js';
import { EptWalk } from './ept.js';
import {
  CACHED,
  EPTE,
  frameAddress,
  LARGE_RESERVED,
  PAGING,
  PendingBits,
  PTE,
  PTE_NX_HI,
  RESERVED_HI,
  WALK,
} from './paging.js';
import type { Ram } from './ram.js';

/** Where EPT starts, and whether accessed and dirty flags are enabled (EPTP bit 6). */
export interface EptPointer {
  readonly root: number;
  readonly ad: boolean;
}

/** Bits of the role: what of the control registers decides about a translation. A TLB context has one role. */
export const ROLE = {
  paging: 3,
  wp: 4,
  nxe: 8,
  smep: 0x10,
  smap: 0x20,
  pse: 0x40,
  pge: 0x80,
  eptAd: 0x100,
} as const;

// Constants of the hot paths, as bindings of this module.
const { p: P, w: W, u: U, a: A, d: D, ps: PS, g: G } = PTE;
const { read: READ, write: WRITE, rmw: RMW, exec: EXEC } = ACCESS;
const { none: PG_NONE, bits32: PG_32, pae: PG_PAE, long: PG_LONG } = PAGING;
const { wp: CR0_WP, pg: CR0_PG } = CR0;
const { pae: CR4_PAE, pse: CR4_PSE, pge: CR4_PGE, smep: CR4_SMEP, smap: CR4_SMAP } = CR4;
const { lma: EFER_LMA, nxe: EFER_NXE } = EFER;
const { done: DONE, fault: FAULT, violation: VIOLATION } = WALK;
const NX_HI = PTE_NX_HI;
const MAXPHY_HI = RESERVED_HI;
const addressOf = frameAddress;
const EPT_RWX = EPTE.rwx;
const EPT_W = EPTE.w;
const READ_ONLY = EPTE.r;

/** The role that control registers give (low halves). */
export const roleOf = (cr0: number, cr4: number, efer: number, ept: EptPointer | undefined): number => {
  const ad = ept?.ad === true ? ROLE.eptAd : 0;
  if ((cr0 & CR0_PG) === 0) return ad;
  const pae = (cr4 & CR4_PAE) !== 0;
  const paging = (efer & EFER_LMA) !== 0 ? PG_LONG : pae ? PG_PAE : PG_32;
  return (
    paging |
    ((cr0 & CR0_WP) !== 0 ? ROLE.wp : 0) |
    (pae && (efer & EFER_NXE) !== 0 ? ROLE.nxe : 0) |
    ((cr4 & CR4_SMEP) !== 0 ? ROLE.smep : 0) |
    ((cr4 & CR4_SMAP) !== 0 ? ROLE.smap : 0) |
    ((cr4 & CR4_PSE) !== 0 ? ROLE.pse : 0) |
    ((cr4 & CR4_PGE) !== 0 ? ROLE.pge : 0) |
    ad
  );
};

/** Privileges of the software TLB: user, supervisor, supervisor with RFLAGS.AC while CR4.SMAP is set. */
export const PRIVILEGE = { user: 0, supervisor: 1, supervisorAc: 2 } as const;

const NEED = [EPTE.r, EPT_W, EPTE.r | EPT_W, EPTE.x];

export class Walk {
  readonly #ram: Ram;
  readonly ept: EptWalk;
  /** Set by the MMU before a walk. */
  role = 0;
  /** Physical address in CR3, bits 39:12; of PAE paging in the PDPTE of the address, -1 when that is not present. */
  root = 0;
  pointer: EptPointer | undefined = undefined;

  // results
  /** Host-physical address of the byte, and the cached form of its page (`CACHED`, page number of 2^shift alignment). */
  hpa = 0;
  word = 0;
  /** log2 of the size of the translation that may be cached: 12 or 21. */
  shift = 12;
  /** Paging-entry references made, EPT's included. */
  references = 0;
  /** Error code of a page fault. */
  code = 0;
  /** Guest-physical address and exit qualification (without bit 7) of an EPT violation or misconfiguration. */
  gpa = 0;
  qualification = 0;

  readonly #pending = new PendingBits();
  /** Entries of the guest whose accessed or dirty bit must be set, as long as EPT lets them be written. */
  readonly #entryGpa = new Float64Array(4);
  readonly #entryRights = new Int32Array(4);
  #probing = false;

  constructor(ram: Ram) {
    this.#ram = ram;
    this.ept = new EptWalk(ram);
  }

  /**
   * Walks for an access of `kind` at `privilege`. @returns one of `WALK`
   * @param probing ignore access rights, and change and count nothing
   */
  walk(lo: number, hi: number, kind: number, privilege: number, probing = false): number {
    this.ept.references = 0;
    this.references = 0;
    this.#pending.count = 0;
    this.#probing = probing;
    const status = this.#walk(lo, hi, kind, privilege);
    this.references += this.ept.references;
    if (status === DONE && !probing) this.#apply();
    return status;
  }

  /**
   * Translates a guest-physical address for a read that has no linear address (PDPTEs). @returns one of `WALK`, `hpa` set
   */
  physical(gpa: number): number {
    const p = this.pointer;
    this.hpa = gpa;
    if (p === undefined) return DONE;
    this.#pending.count = 0;
    this.#probing = false;
    this.#status = this.ept.walk(p.root, p.ad, gpa, READ_ONLY, this.#pending, false);
    if (this.#status !== DONE) return this.#eptFailure(gpa, READ_ONLY, false);
    this.#apply();
    this.hpa = this.ept.hpa;
    return DONE;
  }

  #apply(): void {
    const ram = this.#ram;
    const { at, bits, count } = this.#pending;
    for (let i = 0; i < count; i++) {
      ram.touched(at[i], 4);
      ram.u32[(ram.base + at[i]) >>> 2] |= bits[i];
    }
  }

  /** Host-physical address of a guest's paging entry, or -1 with `#status` set. */
  #status = 0;
  #entry(gpa: number): number {
    const p = this.pointer;
    if (p === undefined) return gpa;
    const need = p.ad ? EPTE.r | EPT_W : EPTE.r;
    this.#status = this.ept.walk(p.root, p.ad, gpa, need, this.#pending, this.#probing);
    if (this.#status === DONE) return this.ept.hpa;
    this.#eptFailure(gpa, need, false);
    return -1;
  }
  #eptFailure(gpa: number, access: number, final: boolean): number {
    this.gpa = gpa;
    this.qualification = access | ((this.ept.rights & 7) << 3) | (final ? 0x100 : 0);
    return this.#status;
  }

  #walk(lo: number, hi: number, kind: number, privilege: number): number {
    const paging = this.role & ROLE.paging;
    if (paging === PG_NONE) {
      return this.#finish(lo >>> 0, lo, kind, CACHED.u | CACHED.w | CACHED.d | CACHED.x | CACHED.r, 64);
    }
    const ram = this.#ram;
    const legacy = paging === PG_32;
    const nxReserved = (this.role & ROLE.nxe) === 0 ? NX_HI | MAXPHY_HI : MAXPHY_HI;
    let table = this.root;
    let shift = paging === PG_LONG ? 39 : legacy ? 22 : 21;
    if (table < 0) return this.#fault(kind, privilege, 0);
    let rights = W | U;
    let nx = 0;
    let level = 0;
    const updates = this.#pending;
    let elo = 0;
    let ehi = 0;
    let marks = 0;
    for (;;) {
      let index: number;
      if (shift === 12) index = (lo >>> 12) & (legacy ? 1023 : 511);
      else if (shift === 21) index = (lo >>> 21) & 511;
      else if (shift === 22) index = lo >>> 22;
      else if (shift === 30) index = ((hi << 2) | (lo >>> 30)) & 511;
      else index = (hi >>> 7) & 511;
      const gpa = table + index * (legacy ? 4 : 8);
      const at = this.#entry(gpa);
      if (at < 0) return this.#status;
      this.references++;
      elo = -1;
      ehi = legacy ? 0 : -1;
      if (ram.has(at, legacy ? 4 : 8)) {
        elo = ram.u32[(ram.base + at) >>> 2];
        if (!legacy) ehi = ram.u32[(ram.base + at + 4) >>> 2];
      }
      if ((elo & P) === 0) return this.#fault(kind, privilege, 0);
      const large = (elo & PS) !== 0 && shift !== 12 && (!legacy || (this.role & ROLE.pse) !== 0);
      if (this.#reservedBits(elo, ehi, shift, large, nxReserved)) {
        return this.#fault(kind, privilege, PF.p | PF.rsvd);
      }
      rights &= elo;
      nx |= ehi >>> 31;
      const leaf = large || shift === 12;
      const wanted = leaf && (kind === WRITE || kind === RMW) ? A | D : A;
      if ((elo & wanted) !== wanted) {
        updates.add(at, wanted);
        this.#entryGpa[level] = gpa;
        this.#entryRights[level] = this.pointer === undefined ? EPT_RWX : this.ept.rights;
        marks |= 1 << level;
        elo |= wanted;
      }
      if (leaf) break;
      table = addressOf(elo, ehi);
      shift = shift === 22 ? 12 : shift - 9;
      level++;
    }
    if (!this.#probing) {
      const denied = this.#denied(rights, nx, kind, privilege);
      if (denied) return this.#fault(kind, privilege, PF.p);
      for (let l = 0; l <= level; l++) {
        if ((marks & (1 << l)) === 0 || (this.#entryRights[l] & EPT_W) !== 0) continue;
        this.ept.rights = this.#entryRights[l];
        this.#status = VIOLATION;
        return this.#eptFailure(this.#entryGpa[l], EPTE.r | EPT_W, false);
      }
    }
    const global = (elo & G) !== 0 && (this.role & ROLE.pge) !== 0;
    const flags =
      CACHED.r |
      (global ? CACHED.g : 0) |
      ((rights & U) !== 0 ? CACHED.u : 0) |
      ((rights & W) !== 0 ? CACHED.w : 0) |
      ((elo & D) !== 0 ? CACHED.d : 0) |
      (nx === 0 ? CACHED.x : 0);
    return this.#finish(this.#leafAddress(elo, ehi, lo, shift), lo, kind, flags, shift);
  }

  #reservedBits(lo: number, hi: number, shift: number, large: boolean, reservedHi: number): boolean {
    if (shift === 22 || (this.role & ROLE.paging) === PG_32) return large && (lo & 0x0020_0000) !== 0;
    // Under PAE paging bits 62:52 are reserved too.
    const more = (this.role & ROLE.paging) === PG_PAE ? 0x7ff0_0000 : 0;
    if ((hi & (reservedHi | more)) !== 0) return true;
    if (shift === 39) return (lo & PS) !== 0;
    return large && (lo & (shift === 30 ? LARGE_RESERVED[30] : LARGE_RESERVED[21])) !== 0;
  }

  /** Guest-physical address of the linear address's byte. */
  #leafAddress(elo: number, ehi: number, lo: number, shift: number): number {
    if (shift === 12) return addressOf(elo, ehi) + (lo & 0xfff);
    // PSE-36: bits 20:13 of a 4 MiB page's entry are address bits 39:32.
    if (shift === 22) {
      return ((elo >>> 13) & 0xff) * 0x1_0000_0000 + ((elo & 0xffc0_0000) >>> 0) + (lo & 0x3f_ffff);
    }
    const size = 2 ** shift;
    return (ehi & 0xff) * 0x1_0000_0000 + ((elo & -size) >>> 0) + (lo & (size - 1));
  }

  #denied(rights: number, nx: number, kind: number, privilege: number): boolean {
    const { role } = this;
    const userPage = (rights & U) !== 0;
    if (privilege === PRIVILEGE.user) {
      if (!userPage) return true;
    } else if (userPage) {
      if (kind === EXEC) {
        if ((role & ROLE.smep) !== 0) return true;
      } else if ((role & ROLE.smap) !== 0 && privilege !== PRIVILEGE.supervisorAc) return true;
    }
    if (kind === EXEC) return nx !== 0;
    if (kind === READ || (rights & W) !== 0) return false;
    return privilege === PRIVILEGE.user || (role & ROLE.wp) !== 0;
  }

  #fault(kind: number, privilege: number, base: number): number {
    const write = kind === WRITE || kind === RMW ? PF.w : 0;
    const fetch = kind === EXEC && (this.role & (ROLE.nxe | ROLE.smep)) !== 0 ? PF.i : 0;
    this.code = base | write | (privilege === PRIVILEGE.user ? PF.u : 0) | fetch;
    return FAULT;
  }

  /** The last step: EPT for the address itself, and the form in which the translation may be cached. */
  #finish(gpa: number, lo: number, kind: number, guestFlags: number, guestShift: number): number {
    let flags = guestFlags;
    let shift = guestShift;
    this.hpa = gpa;
    const p = this.pointer;
    if (p !== undefined) {
      const { ept } = this;
      this.#status = ept.walk(p.root, p.ad, gpa, NEED[kind], this.#pending, this.#probing);
      if (this.#status !== DONE) return this.#eptFailure(gpa, NEED[kind], true);
      this.hpa = ept.hpa;
      if ((ept.rights & EPT_W) === 0 || !ept.dirty) flags &= ~CACHED.d;
      if ((ept.rights & EPTE.x) === 0) flags &= ~CACHED.x;
      if ((ept.rights & EPTE.r) === 0) flags &= ~CACHED.r;
      shift = Math.min(shift, ept.shift);
    } else if (guestShift === 64) shift = 12;
    // What is cached is a page of 4 KiB or 2 MiB; parts of a larger page of the guest are marked.
    this.shift = shift >= 21 ? 21 : 12;
    if (guestShift === 30 || guestShift === 22) flags |= CACHED.part1g;
    else if (guestShift === 21 && this.shift === 12) flags |= CACHED.part2m;
    const within = this.shift === 21 ? (lo >>> 12) & 511 : 0;
    const page = Math.floor(this.hpa / 4096) - within;
    this.word = page >= 0 && page <= CACHED.page ? (flags | page) >>> 0 : 0;
    return DONE;
  }
}
