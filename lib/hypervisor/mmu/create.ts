import type { MmuFactory } from '../vm.js';
/** TEMP */
export const createMmu: MmuFactory = ({ vcpu, port, slots, frames, stats }) => {
  const mem = port.memory;
  const root = frames.page();
  const set = (t: number, i: number, v: bigint) => mem.write64(t + 8 * i, v);
  const mmu = {
    reload() { vcpu.setRoot(root + 0x5e); },
    pageFault(address: number | bigint) {
      const gpa = Number(address);
      const gfn = Math.floor(gpa / 4096);
      stats.pf_taken++;
      const f = slots.frame(gfn);
      if (f === undefined) return 'emulate' as const;
      let t = root;
      const idx = [Math.floor(gpa / 2 ** 39) & 511, Math.floor(gpa / 2 ** 30) & 511, Math.floor(gpa / 2 ** 21) & 511, gfn & 511];
      const large = slots.canMap2M(gfn);
      for (let l = 0; l < (large ? 2 : 3); l++) {
        let e = mem.read64(t + 8 * idx[l]);
        if (e === 0n) { e = BigInt(frames.page()) | 7n; set(t, idx[l], e); }
        t = Number(e & 0xffffffffff000n);
      }
      if (large) set(t, idx[2], BigInt(f - (f % 0x200000)) | 7n | 0x80n | 0x30n | 0x40n); else set(t, idx[3], BigInt(f) | 7n | 0x30n | 0x40n);
      stats.pf_fixed++;
      return 'fixed' as const;
    },
    mmioAddress() { return undefined; }, newCr3() {}, invlpg() {}, invpcid() {}, contextReset() {}, flushGuestTlb() {}, unload() {}, pteWrite() {},
    unprotectAndRetry() { return false; }, faultDuringDelivery() {},
    gvaToGpa(gva: bigint) {
      let t = vcpu.cr3 - (vcpu.cr3 % 4096);
      for (let l = 3; l >= 0; l--) {
        const i = Number((gva >> BigInt(12 + 9 * l)) & 511n);
        const e = mem.read64((slots.hpa(t) as number) + 8 * i);
        if (!(e & 1n)) return { code: 0, address: gva };
        if (l === 0 || e & 0x80n) { const m = (1n << BigInt(12 + 9 * l)) - 1n; return Number((e & 0xffffffffff000n & ~m) | (gva & m)); }
        t = Number(e & 0xffffffffff000n);
      }
      return 0;
    },
    zapAll() {}, pages: { shadow: 0, unsync: 0, p4k: 0, p2m: 0, p1g: 0 },
  };
  return mmu as never;
};
