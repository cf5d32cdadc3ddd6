/**
 * VMCS storage, and access to the current VMCS by field.
 *
 * A VMCS is identified by its host-physical address. Values are kept by row number in typed arrays, as the processor's
 * cache of the region; of the region in memory only the revision identifier is used (SDM volume 3, "Format of the VMCS
 * Region": the rest of the layout is the implementation's own). While a VMCS is *live* (entered, and still current)
 * its guest-state fields with a place in the processor state are that state: VM entry and exit copy nothing.
 */
import { InvariantError } from '../base/error.js';
import type { Cpu } from '../cpu/core.js';
import { readRflags, writeRflags } from '../cpu/rflags.js';
import { FLAG, S } from '../isa/state.js';
import { isOffered } from './controls.js';
import { FIELDS, type FieldEncoding, ROW, ROW_OF_ENCODING } from './fields.js';

const N = FIELDS.length;
/** Number of topics of entry checks there is room for. */
export const MAX_TOPICS = 14;
export const ALL_TOPICS = (1 << MAX_TOPICS) - 1;

/** State offset of a live field, or -1. */
const AT = Int16Array.from(FIELDS, (f) => f.at ?? -1);
/** 1 when the value has an upper half. */
const WIDE = Uint8Array.from(FIELDS, (f) => (f.width === 'u64' || f.width === 'nat' ? 1 : 0));
const MASK_LO = Uint32Array.from(FIELDS, (f) => (f.width === 'u16' ? 0xffff : 0xffff_ffff));

const RFLAGS_DEFINED = 0x3f_7fd7;

/** What a VMWRITE makes out of date, beyond entry checks; `EFFECT` by row. */
export const STALE = { controls: 1, mode: 2, cr3: 4, event: 8 } as const;
const MODE_ROWS: readonly number[] = [
  ROW.guestCsAccessRights,
  ROW.guestSsAccessRights,
  ROW.guestRflags,
  ROW.guestCr0,
  ROW.guestCr4,
  ROW.guestEfer,
];
/** Read at each entry: nothing is kept of them. */
const EVENT_ROWS: readonly number[] = [
  ROW.entryInterruptionInfo,
  ROW.entryExceptionErrorCode,
  ROW.entryInstructionLength,
  ROW.vmxPreemptionTimerValue,
];
const EFFECT = Uint8Array.from(FIELDS, (f) => {
  if (EVENT_ROWS.includes(f.row)) return STALE.event;
  if (f.row === ROW.guestCr3) return STALE.cr3;
  if (MODE_ROWS.includes(f.row)) return STALE.mode;
  return f.kind === 'control' ? STALE.controls : 0;
});

/** One VMCS. */
export class Vmcs {
  readonly hpa: number;
  readonly lo = new Uint32Array(N);
  readonly hi = new Uint32Array(N);
  launched = false;

  constructor(hpa: number) {
    this.hpa = hpa;
  }
}

/** The current VMCS as the processor sees it. Fields are named by row (`ROW`). */
export class CurrentVmcs {
  readonly cpu: Cpu;
  current: Vmcs | undefined;
  /** The VMCS whose guest state is in the processor. */
  live: Vmcs | undefined;
  /** RFLAGS.RF of the saved guest state; kept here while live, because without breakpoints it means nothing. */
  resumeFlag = false;
  /** Bits of each field's halves that each check topic read on its last runs, by topic and row; see `checks.ts`. */
  readonly readLo = new Uint32Array(MAX_TOPICS * N);
  readonly readHi = new Uint32Array(MAX_TOPICS * N);
  /** Check topics to run again. */
  dirtyTopics = ALL_TOPICS;
  /** `STALE` bits collected since the last entry. */
  stale = 0xff;

  private lo: Uint32Array = new Uint32Array(N);
  private hi: Uint32Array = new Uint32Array(N);
  private isLive = false;
  /** Bits in which a written RFLAGS differs from what the register can hold: entry checks must see them. */
  private oddFlags = 0;
  private oddFlagsHigh = 0;

  constructor(cpu: Cpu) {
    this.cpu = cpu;
  }

  /** Makes `vmcs` current. Nothing is known about its state then, so all checks are due. */
  select(vmcs: Vmcs | undefined): void {
    if (this.live !== undefined && this.live !== vmcs) this.evict();
    this.current = vmcs;
    if (vmcs !== undefined) {
      this.lo = vmcs.lo;
      this.hi = vmcs.hi;
    }
    this.isLive = vmcs !== undefined && this.live === vmcs;
    this.dirtyTopics = ALL_TOPICS;
    this.stale = 0xff;
  }

  /** Copies the live guest state back into its VMCS. */
  evict(): void {
    const vmcs = this.live;
    if (vmcs === undefined) return;
    const { cpu } = this;
    for (let row = 0; row < N; row++) {
      const at = AT[row];
      if (at < 0) continue;
      vmcs.lo[row] = row === ROW.guestRflags ? this.rflags() : cpu.get32(at) & MASK_LO[row];
      vmcs.hi[row] = row === ROW.guestRflags ? this.oddFlagsHigh : WIDE[row] !== 0 ? cpu.get32(at + 4) : 0;
    }
    this.live = undefined;
    this.isLive = false;
    this.stale = 0xff;
  }

  /** Puts the guest state of the current VMCS into the processor; true when it was not there already. */
  load(): boolean {
    const vmcs = this.current;
    if (vmcs === undefined || this.isLive) return false;
    this.evict();
    const { cpu } = this;
    for (let row = 0; row < N; row++) {
      const at = AT[row];
      if (at < 0 || row === ROW.guestRflags) continue;
      cpu.set32(at, vmcs.lo[row]);
      if (WIDE[row] !== 0) cpu.set32(at + 4, vmcs.hi[row]);
    }
    this.live = vmcs;
    this.isLive = true;
    this.setRflags(vmcs.lo[ROW.guestRflags], vmcs.hi[ROW.guestRflags]);
    this.stale = 0xff;
    return true;
  }

  /** Low half of the guest's RFLAGS as the VMCS shows it. */
  private rflags(): number {
    return (readRflags(this.cpu) | (this.resumeFlag ? FLAG.rf : 0)) ^ this.oddFlags;
  }

  private setRflags(lo: number, hi: number): void {
    this.resumeFlag = (lo & FLAG.rf) !== 0;
    this.oddFlags = (lo & ~RFLAGS_DEFINED) | (~lo & 2);
    this.oddFlagsHigh = hi;
    writeRflags(this.cpu, lo & ~FLAG.rf);
  }

  /** Low 32 bits, unsigned. */
  lo32(row: number): number {
    const at = AT[row];
    if (at < 0 || !this.isLive) return this.lo[row];
    if (row === ROW.guestRflags) return this.rflags() >>> 0;
    return (this.cpu.u32[(this.cpu.at + at) >>> 2] & MASK_LO[row]) >>> 0;
  }

  /** High 32 bits, unsigned; 0 for narrower fields. */
  hi32(row: number): number {
    const at = AT[row];
    if (at < 0 || !this.isLive) return this.hi[row];
    if (row === ROW.guestRflags) return this.oddFlagsHigh;
    if (WIDE[row] === 0) return 0;
    return this.cpu.u32[(this.cpu.at + at + 4) >>> 2];
  }

  /** The value as a number; exact below 2^53. */
  number(row: number): number {
    return this.hi32(row) * 0x1_0000_0000 + this.lo32(row);
  }

  big(row: number): bigint {
    return (BigInt(this.hi32(row)) << 32n) | BigInt(this.lo32(row));
  }

  /** The processor's own store to a field: no dirtiness. Not for live fields. */
  put(row: number, lo: number, hi = 0): void {
    this.lo[row] = lo;
    this.hi[row] = hi;
  }

  /** The processor's own store of a 64-bit value. */
  putBig(row: number, v: bigint): void {
    this.lo[row] = Number(v & 0xffff_ffffn);
    this.hi[row] = Number((v >> 32n) & 0xffff_ffffn);
  }

  /** VMWRITE: stores, and marks what depends on the field as out of date if the value changed. */
  write(row: number, lo: number, hi: number): void {
    const mask = MASK_LO[row];
    const newLo = (lo & mask) >>> 0;
    const newHi = WIDE[row] === 0 ? 0 : hi >>> 0;
    const at = AT[row];
    const diffLo = this.lo32(row) ^ newLo;
    const diffHi = this.hi32(row) ^ newHi;
    if ((diffLo | diffHi) === 0) return;
    if (at < 0 || !this.isLive) {
      this.lo[row] = newLo;
      this.hi[row] = newHi;
    } else if (row === ROW.guestRflags) {
      this.setRflags(newLo, newHi);
    } else {
      const i = (this.cpu.at + at) >>> 2;
      this.cpu.u32[i] = newLo;
      if (WIDE[row] !== 0) this.cpu.u32[i + 1] = newHi;
    }
    this.stale |= EFFECT[row];
    for (let topic = 0, i = row; topic < MAX_TOPICS; topic++, i += N) {
      if (((this.readLo[i] & diffLo) | (this.readHi[i] & diffHi)) !== 0) this.dirtyTopics |= 1 << topic;
    }
  }

  /** RFLAGS without the arithmetic flags, which are costly and of no interest to entry checks. */
  systemFlags(): number {
    if (!this.isLive) return this.lo[ROW.guestRflags];
    return ((this.cpu.get32(S.eflags) | 2 | (this.resumeFlag ? FLAG.rf : 0)) ^ this.oddFlags) >>> 0;
  }
}

const EXISTS = Uint8Array.from(FIELDS, (f) => (f.needs === undefined || isOffered(f.needs) ? 1 : 0));

/** Row of an encoding that a VMREAD may name. Throws for a field that does not exist: a bug of the hypervisor. */
export const rowOf = (encoding: FieldEncoding): number => {
  const row = ROW_OF_ENCODING[encoding] ?? -1;
  if (row < 0 || EXISTS[row] === 0) {
    throw new InvariantError(`no VMCS field has encoding 0x${encoding.toString(16)} on this processor`);
  }
  return row;
};
/** Whether this processor has the field of a row. */
export const exists = (row: number): boolean => EXISTS[row] !== 0;
/** Whether VMWRITE may name the field. */
export const isWritable = (row: number): boolean => FIELDS[row].kind !== 'info';
