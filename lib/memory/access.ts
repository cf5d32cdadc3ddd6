/** What the slow path of a memory access is asked for, and what it answers. Shared by engines, helpers and the MMU. */

/** Kinds of access. `rmw` translates for writing and delivers the old bytes. */
export const ACCESS = { read: 0, write: 1, rmw: 2, exec: 3 } as const;
export type Access = (typeof ACCESS)[keyof typeof ACCESS];

/**
 * Software TLB geometry: direct-mapped, `TLB_ENTRIES` entries of 16 bytes a set:
 *   u64 tag     linear page address (low 12 bits zero); TLB_EMPTY when unused
 *   u32 addend  linear-memory address = addend + low 32 bits of the linear address (mod 2^32);
 *               exec sets: linear-memory address of the page's table of decoded code
 *   u32 page    host page number (hpa / 4096) | flags << 24: bit 24 global
 * Lookup: entry = set + ((lin >> 8) & TLB_INDEX_MASK); hit when tag == (lin + size - 1) & ~0xfff. A crossing access can
 * never hit. `S.tlbRead`, `S.tlbWrite`, `S.tlbExec` hold the addresses of the current sets: one triple for each
 * privilege (user, supervisor, supervisor with AC) of each of a few address-space contexts.
 */
export const TLB_ENTRIES = 1024;
export const TLB_SET_BYTES = TLB_ENTRIES * 16;
export const TLB_INDEX_MASK = (TLB_ENTRIES - 1) << 4;
/** Tag that no linear page address equals. */
export const TLB_EMPTY = 1n;
/** Address-space contexts kept at once (VPID × PCID × EPTP). */
export const TLB_CONTEXTS = 8;
export const TLB_PRIVILEGES = 3;

/** The answer of a slow access that left the instruction: a fault or VM exit is pending. */
export const LEFT = -1;
