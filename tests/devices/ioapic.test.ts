import { describe, expect, it } from 'vitest';
import { type ApicMessage, createIoApic, IOAPIC_BASE } from '../../lib/devices/ioapic.js';

const setup = () => {
  const sent: ApicMessage[] = [];
  const ended: number[] = [];
  const ioapic = createIoApic({
    deliver: (m) => sent.push(m) > 0,
    onEnd: (pin) => ended.push(pin),
    watched: [0],
  });
  const w = (index: number, v: number) => {
    ioapic.write(IOAPIC_BASE, 4, index);
    ioapic.write(IOAPIC_BASE + 0x10, 4, v);
  };
  const r = (index: number) => {
    ioapic.write(IOAPIC_BASE, 4, index);
    return ioapic.read(IOAPIC_BASE + 0x10, 4);
  };
  return { ioapic, sent, ended, w, r };
};

describe('I/O APIC', () => {
  it('has 24 masked pins after reset', () => {
    const { r, w } = setup();
    expect(r(1)).toBe(0x0017_0011);
    for (let pin = 0; pin < 24; pin++) expect([r(0x10 + 2 * pin), r(0x11 + 2 * pin)]).toEqual([0x1_0000, 0]);
    w(0, 0x0500_0000);
    expect(r(0)).toBe(0x0500_0000);
    expect(r(0x40)).toBe(0xffff_ffff);
  });

  it('sends edges once a rise, and not while masked', () => {
    const { ioapic, sent, w } = setup();
    ioapic.setPin(4, true);
    expect(sent).toEqual([]);
    w(0x18, 0x0834);
    w(0x19, 0x0100_0000);
    ioapic.setPin(4, true);
    expect(sent).toEqual([]);
    ioapic.setPin(4, false);
    ioapic.setPin(4, true);
    expect(sent).toEqual([{ vector: 0x34, mode: 0, level: false, logical: true, destination: 1 }]);
  });

  it('serves a held level again after its end, with Remote IRR between', () => {
    const { ioapic, sent, ended, w, r } = setup();
    w(0x22, 0x8044);
    ioapic.setPin(9, true);
    ioapic.setPin(9, true);
    expect(sent.length).toBe(1);
    expect(r(0x22)).toBe(0xc044);
    ioapic.eoi(0x44, true);
    expect(sent.length).toBe(2);
    ioapic.setPin(9, false);
    ioapic.eoi(0x44, true);
    expect(sent.length).toBe(2);
    expect(r(0x22)).toBe(0x8044);
    expect(ended).toEqual([9, 9]);
  });

  it('serves a held level when unmasked, and drops Remote IRR with the level mode', () => {
    const { ioapic, sent, w, r } = setup();
    w(0x22, 0x1_8044);
    ioapic.setPin(9, true);
    expect(sent.length).toBe(0);
    w(0x22, 0x8044);
    expect(sent.length).toBe(1);
    w(0x22, 0x1_0044);
    expect(r(0x22)).toBe(0x1_0044);
  });

  it('knows which vectors must not lose their end', () => {
    const { ioapic, w } = setup();
    w(0x10, 0x30);
    w(0x18, 0x34);
    w(0x22, 0x8044);
    expect([0x30, 0x34, 0x44].map((v) => ioapic.handlesVector(v))).toEqual([true, false, true]);
  });
});
