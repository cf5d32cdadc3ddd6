/** Small ELF images for tests. */
export interface TestSegment {
  readonly paddr: number;
  readonly bytes: Uint8Array;
  readonly memoryBytes?: number;
}

/** An executable of loadable segments, without sections. */
export const buildElf = (entry: number, segments: readonly TestSegment[]): Uint8Array => {
  const headers = 64 + 56 * segments.length;
  const out = new Uint8Array(headers + segments.reduce((n, s) => n + s.bytes.length, 0));
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(entry), true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, segments.length, true);
  let at = headers;
  segments.forEach((s, i) => {
    const ph = 64 + 56 * i;
    view.setUint32(ph, 1, true);
    view.setUint32(ph + 4, 7, true);
    view.setBigUint64(ph + 8, BigInt(at), true);
    view.setBigUint64(ph + 16, 0xffff_ffff_8000_0000n + BigInt(s.paddr), true);
    view.setBigUint64(ph + 24, BigInt(s.paddr), true);
    view.setBigUint64(ph + 32, BigInt(s.bytes.length), true);
    view.setBigUint64(ph + 40, BigInt(s.memoryBytes ?? s.bytes.length), true);
    out.set(s.bytes, at);
    at += s.bytes.length;
  });
  return out;
};

/** A bzImage around a compressed payload: one setup sector, boot protocol 2.15. */
export const buildBzImage = (payload: Uint8Array): Uint8Array => {
  const out = new Uint8Array(1024 + 16 + payload.length);
  const view = new DataView(out.buffer);
  out[0x1f1] = 1;
  view.setUint16(0x1fe, 0xaa55, true);
  out.set([0x48, 0x64, 0x72, 0x53], 0x202);
  view.setUint16(0x206, 0x20f, true);
  view.setUint16(0x20e, 0x100, true);
  out.set(new TextEncoder().encode('6.1.0-test\0'), 0x300);
  view.setUint32(0x248, 16, true);
  view.setUint32(0x24c, payload.length, true);
  out.set(payload, 1024 + 16);
  return out;
};
