/**
 * Linear memory: one fixed-size WebAssembly.Memory that holds processor state, TLBs, decoded code and host RAM.
 *
 *   0x0000_0400  processor state (`S`)
 *   0x0001_0000  software TLB sets
 *   0x0020_0000  decoded records
 *   …            one table of 4096 × u32 per page with decoded code: record address by offset, 0 = not decoded
 *   ramBase      host RAM: host-physical address + ramBase = linear-memory address
 *
 * The memory never grows while a machine runs, so every view stays valid. Pages of host RAM that hold decoded code are
 * marked in `codePages`; whoever writes physical memory goes through `Ram.write*` or asks `touched` first.
 */
import { InvariantError, LabError } from '../base/error.js';
import { STATE_BYTES } from '../isa/state.js';

export const LAYOUT = {
  state: 0x400,
  tlb: 0x1_0000,
  /** A TLB set that stays empty: while it is the current one, every access takes the slow path. */
  emptySet: 0x1f_c000,
  records: 0x20_0000,
  recordsBytes: 48 << 20,
  /** Number of code-page tables of 16 KiB. */
  codeTables: 4096,
} as const;
export const CODE_TABLES_AT = LAYOUT.records + LAYOUT.recordsBytes;
export const RAM_AT = CODE_TABLES_AT + LAYOUT.codeTables * 16384;
if (LAYOUT.state + STATE_BYTES > LAYOUT.tlb) throw new InvariantError('processor state overlaps the TLB');

/** Host RAM above this does not fit beside the rest in 4 GiB. */
export const MAX_RAM_BYTES = 0x1_0000_0000 - RAM_AT - 0x10_0000;

export class Ram {
  readonly memory: WebAssembly.Memory;
  readonly bytes: number;
  readonly base = RAM_AT;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly f64: Float64Array;
  readonly u64: BigUint64Array;
  /** One byte a host page: number of decoded pieces is non-zero when code of that page is decoded. */
  readonly codePages: Uint8Array;
  /** Called before physical bytes [hpa, hpa + size) of a page with decoded code change. */
  onCodeWrite: (hpa: number, size: number) => void = () => {};

  /** @param bytes host RAM, a multiple of 4096 */
  constructor(bytes: number) {
    if (bytes % 4096 !== 0 || bytes <= 0 || bytes > MAX_RAM_BYTES) {
      throw new LabError(
        'ram.size',
        `host RAM of ${bytes} bytes is not possible`,
        `give a multiple of 4096 up to ${MAX_RAM_BYTES}`,
      );
    }
    const pages = Math.ceil((RAM_AT + bytes) / 65536);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = bytes;
    const buffer = this.memory.buffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.codePages = new Uint8Array(bytes / 4096);
  }

  /** True when [hpa, hpa + size) is inside host RAM. */
  has(hpa: number, size = 1): boolean {
    return hpa >= 0 && hpa + size <= this.bytes;
  }

  /** To be called before a write of `size` bytes that does not cross a page. */
  touched(hpa: number, size: number): void {
    if (this.codePages[hpa >>> 12] !== 0) this.onCodeWrite(hpa, size);
  }

  read8(hpa: number): number {
    return this.u8[RAM_AT + hpa];
  }
  /** Aligned reads and writes of host-physical memory. Reads are unsigned. */
  read16(hpa: number): number {
    return this.u16[(RAM_AT + hpa) >>> 1];
  }
  read32(hpa: number): number {
    return this.u32[(RAM_AT + hpa) >>> 2];
  }
  read64(hpa: number): bigint {
    return this.u64[(RAM_AT + hpa) / 8];
  }
  write8(hpa: number, v: number): void {
    this.touched(hpa, 1);
    this.u8[RAM_AT + hpa] = v;
  }
  write16(hpa: number, v: number): void {
    this.touched(hpa, 2);
    this.u16[(RAM_AT + hpa) >>> 1] = v;
  }
  write32(hpa: number, v: number): void {
    this.touched(hpa, 4);
    this.u32[(RAM_AT + hpa) >>> 2] = v;
  }
  write64(hpa: number, v: bigint): void {
    this.touched(hpa, 8);
    this.u64[(RAM_AT + hpa) / 8] = v;
  }
  /** Copies bytes in, any alignment and length. */
  writeBytes(hpa: number, bytes: Uint8Array): void {
    if (!this.has(hpa, bytes.length))
      throw new LabError(
        'ram.range',
        `bytes 0x${hpa.toString(16)} + ${bytes.length} are outside host RAM of ${this.bytes} bytes`,
      );
    for (let page = hpa >>> 12; page <= (hpa + bytes.length - 1) >>> 12; page++) {
      if (this.codePages[page] !== 0) this.onCodeWrite(page << 12, 4096);
    }
    this.u8.set(bytes, RAM_AT + hpa);
  }
  /** A view (not a copy) of host-physical bytes; for reading only. */
  view(hpa: number, size: number): Uint8Array {
    return this.u8.subarray(RAM_AT + hpa, RAM_AT + hpa + size);
  }
}
