/**
 * The checks of VM entry: what a rule looks like, what it sees, and how the rules are run.
 *
 * SDM volume 3, chapter "VM Entries". A rule is a row with an id; its group decides the outcome of a violation:
 * `controls` VMfailValid(7), `host` VMfailValid(8), `guest` exit 33, `msrLoad` exit 34 (the last are in `msr-lists.ts`).
 *
 * Rules are run by topic. While a topic runs, every bit it reads is noted; it is run again only when a VMWRITE has
 * changed one of them. This is exact: the outcome depends only on what was read, and a processor in operation keeps
 * valid state valid. Rules that look into memory are `volatile` and are run at every entry.
 */

import { fromHalves, isCanonical } from '../base/bits.js';
import { InvariantError } from '../base/error.js';
import { MAXPHYADDR } from '../memory/paging.js';
import type { Ram } from '../memory/ram.js';
import { PROC, SECONDARY } from './controls.js';
import { FIELDS, type FieldName, ROW } from './fields.js';
import { ALL_TOPICS, type CurrentVmcs, MAX_TOPICS } from './vmcs.js';

export type CheckGroup = 'controls' | 'host' | 'guest' | 'msrLoad';

/** Topics: a part of the SDM's chapter each. The order is that of the checks. */
export const TOPICS = {
  execution: { group: 'controls', sdm: 'VM-Execution Control Fields' },
  exit: { group: 'controls', sdm: 'VM-Exit Control Fields' },
  entry: { group: 'controls', sdm: 'VM-Entry Control Fields' },
  injection: { group: 'controls', sdm: 'VM-Entry Control Fields' },
  hostRegisters: { group: 'host', sdm: 'Checks on Host Control Registers, MSRs, and SSP' },
  hostSegments: { group: 'host', sdm: 'Checks on Host Segment and Descriptor-Table Registers' },
  hostSize: { group: 'host', sdm: 'Checks Related to Address-Space Size' },
  guestRegisters: { group: 'guest', sdm: 'Checks on Guest Control Registers, Debug Registers, and MSRs' },
  guestSegments: { group: 'guest', sdm: 'Checks on Guest Segment Registers' },
  guestTables: { group: 'guest', sdm: 'Checks on Guest Descriptor-Table Registers' },
  guestRip: { group: 'guest', sdm: 'Checks on Guest RIP, RFLAGS, and SSP' },
  guestState: { group: 'guest', sdm: 'Checks on Guest Non-Register State' },
  guestLink: { group: 'guest', sdm: 'Checks on Guest Non-Register State' },
  guestPdptes: { group: 'guest', sdm: 'Checks on Guest Page-Directory-Pointer-Table Entries' },
} as const satisfies Record<string, { group: CheckGroup; sdm: string }>;
export type Topic = keyof typeof TOPICS;
if (Object.keys(TOPICS).length > MAX_TOPICS) throw new InvariantError('too many topics of entry checks');

/** Field values that break a rule when written over a valid VMCS; a function is given the valid value. */
export type Violation = Readonly<Partial<Record<FieldName, bigint | ((valid: bigint) => bigint)>>>;

export interface CheckRow {
  readonly id: string;
  readonly topic: Topic;
  /** The rule, as a sentence that must hold. */
  readonly says: string;
  /** The rule applies only then. */
  readonly when?: (v: CheckView) => boolean;
  readonly fails: (v: CheckView) => boolean;
  /** Exit qualification of a failed guest-state check; 0 when absent. */
  readonly qualification?: number;
  /** The rule also reads memory, which no VMWRITE announces: it is run at every entry. */
  readonly volatile?: true;
  /** How to break it: what tests and notebooks try. */
  readonly example: Violation;
  /** Quadwords of memory that belong to the example, by host-physical address. */
  readonly exampleMemory?: Readonly<Record<number, bigint>>;
}

/** What rules may look at: the fields of the current VMCS, capabilities, and host-physical memory. */
export class CheckView {
  readonly fields: CurrentVmcs;
  readonly ram: Ram;
  private at = -1;

  constructor(fields: CurrentVmcs, ram: Ram) {
    this.fields = fields;
    this.ram = ram;
  }

  /** Notes what this topic reads from here on; -1 stops it. */
  trace(topic: number): void {
    this.at = topic * FIELDS.length;
  }
  /** Low half; arithmetic flags of RFLAGS read as 0. */
  lo(row: number): number {
    return this.bits(row, 0xffff_ffff);
  }
  hi(row: number): number {
    if (this.at >= 0) this.fields.readHi[this.at + row] = 0xffff_ffff;
    return this.fields.hi32(row);
  }
  /** The bits of the low half that `mask` names; only they make the topic depend on the field. */
  bits(row: number, mask: number): number {
    if (this.at >= 0) this.fields.readLo[this.at + row] |= mask;
    return ((row === ROW.guestRflags ? this.fields.systemFlags() : this.fields.lo32(row)) & mask) >>> 0;
  }
  /** Exact below 2^53. */
  number(row: number): number {
    return fromHalves(this.lo(row), this.hi(row));
  }
  /** Any of the bits of the low half. */
  any(row: number, mask: number): boolean {
    return this.bits(row, mask) !== 0;
  }
  canonical(row: number): boolean {
    return isCanonical(this.lo(row), this.hi(row) | 0);
  }
  /** A physical address of at most the processor's width, aligned to 2^bits. */
  physical(row: number, bits: number): boolean {
    return this.bits(row, (1 << bits) - 1) === 0 && this.hi(row) < PHYSICAL_HIGH;
  }

  pin(mask: number): boolean {
    return this.any(ROW.pinBasedControls, mask);
  }
  proc(mask: number): boolean {
    return this.any(ROW.procBasedControls, mask);
  }
  /** Secondary controls count as 0 while not activated. */
  secondary(mask: number): boolean {
    return this.proc(PROC.activateSecondaryControls) && this.any(ROW.secondaryControls, mask);
  }
  exit(mask: number): boolean {
    return this.any(ROW.exitControls, mask);
  }
  entry(mask: number): boolean {
    return this.any(ROW.entryControls, mask);
  }
  get ept(): boolean {
    return this.secondary(SECONDARY.enableEpt);
  }
  get unrestricted(): boolean {
    return this.secondary(SECONDARY.unrestrictedGuest);
  }
  /** Guest RFLAGS.VM: virtual-8086 mode after entry. */
  get virtual8086(): boolean {
    return this.any(ROW.guestRflags, 0x2_0000);
  }
}

/** High halves of physical addresses are below this. */
export const PHYSICAL_HIGH = 2 ** (MAXPHYADDR - 32);

/** Runs the rules of the out-of-date topics in order; the first violated rule, or undefined. */
export class CheckRunner {
  readonly view: CheckView;
  private readonly topics: readonly (readonly CheckRow[])[];
  private readonly volatile: readonly CheckRow[];

  constructor(view: CheckView, rows: readonly CheckRow[]) {
    this.view = view;
    this.topics = Object.keys(TOPICS).map((topic) => rows.filter((r) => r.topic === topic));
    this.volatile = rows.filter((r) => r.volatile);
  }

  run(): CheckRow | undefined {
    const { view } = this;
    const { fields } = view;
    for (const row of this.volatile) {
      if ((row.when === undefined || row.when(view)) && row.fails(view)) fields.dirtyTopics = ALL_TOPICS;
    }
    if (fields.dirtyTopics === 0) return undefined;
    let broken: CheckRow | undefined;
    for (let topic = 0; topic < this.topics.length && broken === undefined; topic++) {
      if (((fields.dirtyTopics >>> topic) & 1) === 0) continue;
      view.trace(topic);
      const rows = this.topics[topic];
      for (let i = 0; i < rows.length && broken === undefined; i++) {
        const row = rows[i];
        if ((row.when === undefined || row.when(view)) && row.fails(view)) broken = row;
      }
      if (broken === undefined) fields.dirtyTopics &= ~(1 << topic);
    }
    view.trace(-1);
    return broken;
  }
}

// helpers for `example` columns
export const set =
  (mask: number | bigint) =>
  (valid: bigint): bigint =>
    valid | BigInt(mask);
export const clear =
  (mask: number | bigint) =>
  (valid: bigint): bigint =>
    valid & ~BigInt(mask);
export const plus =
  (n: number) =>
  (valid: bigint): bigint =>
    valid + BigInt(n);
/** An address that is not canonical. */
export const NOT_CANONICAL = 0x8000_0000_0000n;
/** A page-aligned address that is too wide. */
export const TOO_WIDE = 1n << BigInt(MAXPHYADDR);
