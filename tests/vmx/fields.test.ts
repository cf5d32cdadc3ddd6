/** Encodings, exit reasons and capability MSRs against the numbers of the manual. */
import { describe, expect, test } from 'vitest';
import { VMX_MSRS } from '../../lib/vmx/capabilities.js';
import { allowed, CONTROL_WORDS, CONTROLS, type WordName } from '../../lib/vmx/controls.js';
import { EXIT, EXIT_REASONS } from '../../lib/vmx/exit-reasons.js';
import { FIELDS, type FieldName, fieldOf, VMCS } from '../../lib/vmx/fields.js';

const ENCODINGS: readonly (readonly [FieldName, number])[] = [
  ['virtualProcessorId', 0x0000],
  ['guestEsSelector', 0x0800],
  ['guestTrSelector', 0x080e],
  ['hostEsSelector', 0x0c00],
  ['hostTrSelector', 0x0c0c],
  ['ioBitmapA', 0x2000],
  ['msrBitmap', 0x2004],
  ['tscOffset', 0x2010],
  ['virtualApicAddress', 0x2012],
  ['apicAccessAddress', 0x2014],
  ['eptPointer', 0x201a],
  ['xssExitingBitmap', 0x202c],
  ['tscMultiplier', 0x2032],
  ['guestPhysicalAddress', 0x2400],
  ['vmcsLinkPointer', 0x2800],
  ['guestDebugctl', 0x2802],
  ['guestEfer', 0x2806],
  ['guestPdpte3', 0x2810],
  ['hostPat', 0x2c00],
  ['hostEfer', 0x2c02],
  ['pinBasedControls', 0x4000],
  ['procBasedControls', 0x4002],
  ['exceptionBitmap', 0x4004],
  ['exitControls', 0x400c],
  ['entryControls', 0x4012],
  ['entryInterruptionInfo', 0x4016],
  ['tprThreshold', 0x401c],
  ['secondaryControls', 0x401e],
  ['pleGap', 0x4020],
  ['pleWindow', 0x4022],
  ['vmInstructionError', 0x4400],
  ['exitReason', 0x4402],
  ['exitInterruptionInfo', 0x4404],
  ['idtVectoringInfo', 0x4408],
  ['exitInstructionLength', 0x440c],
  ['exitInstructionInfo', 0x440e],
  ['guestEsLimit', 0x4800],
  ['guestGdtrLimit', 0x4810],
  ['guestCsAccessRights', 0x4816],
  ['guestInterruptibilityState', 0x4824],
  ['guestActivityState', 0x4826],
  ['guestSysenterCs', 0x482a],
  ['vmxPreemptionTimerValue', 0x482e],
  ['hostSysenterCs', 0x4c00],
  ['cr0GuestHostMask', 0x6000],
  ['cr4ReadShadow', 0x6006],
  ['cr3Target0', 0x6008],
  ['exitQualification', 0x6400],
  ['guestLinearAddress', 0x640a],
  ['guestCr0', 0x6800],
  ['guestCr3', 0x6802],
  ['guestCsBase', 0x6808],
  ['guestGdtrBase', 0x6816],
  ['guestDr7', 0x681a],
  ['guestRsp', 0x681c],
  ['guestRip', 0x681e],
  ['guestRflags', 0x6820],
  ['guestPendingDebugExceptions', 0x6822],
  ['guestSysenterEip', 0x6826],
  ['hostCr0', 0x6c00],
  ['hostRsp', 0x6c14],
  ['hostRip', 0x6c16],
];

describe('field encodings', () => {
  test.each(ENCODINGS)('%s', (name, encoding) => {
    expect(VMCS[name]).toBe(encoding);
    expect(fieldOf(encoding)?.name).toBe(name);
  });
  test('are even: bit 0 selects the high half', () => {
    expect(FIELDS.filter((f) => (f.encoding & 1) !== 0)).toEqual([]);
  });
});

describe('exit reasons', () => {
  test('undefined in the edition of the lab', () => {
    const up = EXIT_REASONS.filter((r) => r.number <= 69);
    expect(up.filter((r) => !r.defined).map((r) => r.number)).toEqual([35, 38, 42, 65]);
    expect(EXIT_REASONS.filter((r) => r.number > 69 && r.defined)).toEqual([]);
  });
  test('defined, but without a handler in KVM 6.1', () => {
    const rows = EXIT_REASONS.filter((r) => r.defined && !r.handled);
    expect(rows.map((r) => r.number)).toEqual([3, 4, 5, 6, 11, 16, 17, 33, 34, 51, 63, 64, 66, 67, 68, 69]);
  });
  test('names', () => {
    expect([
      EXIT.exceptionOrNmi,
      EXIT.cpuid,
      EXIT.crAccess,
      EXIT.ioInstruction,
      EXIT.eptViolation,
      EXIT.preemptionTimer,
      EXIT.xsetbv,
    ]).toEqual([0, 10, 28, 30, 48, 52, 55]);
    expect(EXIT_REASONS[48].kvm).toBe('EPT_VIOLATION');
  });
});

describe('capabilities', () => {
  const msr = (n: number): bigint => VMX_MSRS.get(n) ?? -1n;
  // KVM-1.1: the words that KVM writes with EPT and without
  test.each([
    ['pin', 0x7f],
    ['proc', 0xb5a06dfa],
    ['proc', 0xb5a1effa],
    ['secondary', 0x001014fa],
    ['secondary', 0x00101478],
    ['secondary', 0x001014eb],
    ['exit', 0x000befff],
    ['exit', 0x002befff],
    ['entry', 0x000053ff],
    ['entry', 0x0000d3ff],
  ] as const)('%s controls may be 0x%s', (word, value) => {
    const { mustBe1, mayBe1 } = allowed(word);
    expect((value & mustBe1) >>> 0).toBe(mustBe1);
    expect((value & ~mayBe1) >>> 0).toBe(0);
  });
  test.each(Object.entries(CONTROL_WORDS))(
    '%s: true controls only relax',
    (word, { msr: old, trueMsr, default1 }) => {
      const strict = msr(old);
      const relaxed = msr(trueMsr);
      expect(Number(strict & 0xffff_ffffn)).toBe(default1);
      expect(relaxed >> 32n).toBe(strict >> 32n);
      expect(relaxed & ~strict & 0xffff_ffffn).toBe(0n);
      const offered = CONTROLS.filter((c) => c.word === (word as WordName) && c.offered);
      for (const c of offered) expect((strict >> BigInt(32 + c.bit)) & 1n).toBe(1n);
    },
  );
  test('basic, miscellaneous, EPT', () => {
    expect(msr(0x480) >> 32n).toBe(0x00d8_1000n);
    expect(Number(msr(0x485) & 0x1ffn) & 0x1e0).toBe(0x1e0);
    expect(msr(0x485) & 31n).toBe(5n);
    expect(msr(0x486)).toBe(0x8000_0021n);
    expect(msr(0x488)).toBe(0x2000n);
    const ept = msr(0x48c);
    for (const bit of [6n, 14n, 16n, 17n, 20n, 21n, 25n, 26n, 32n, 40n, 41n, 42n, 43n])
      expect((ept >> bit) & 1n).toBe(1n);
  });
});
