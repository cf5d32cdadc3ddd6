import { expect, test } from 'vitest';
import { readModuleParams } from '../../lib/lab/module-params.js';

test.each([
  [['ept=N'], { ept: false }, {}],
  [['kvm_intel.vpid=0', 'kvm-intel.ple_gap=0'], { vpid: false, ple_gap: 0 }, {}],
  [['kvm.ignore_msrs', 'report_ignored_msrs=off'], {}, { ignore_msrs: true, report_ignored_msrs: false }],
  [['vpid=N', 'vpid=y'], { vpid: true }, {}],
  [['lapic_timer_advance_ns=-1'], {}, { lapic_timer_advance_ns: -1 }],
])('%j', (texts, intel, kvm) => {
  expect(readModuleParams(texts)).toEqual({ 'kvm-intel': intel, kvm });
});

test.each([
  ['nothing=1', "unknown module parameter 'nothing'"],
  ['kvm.ept=N', "unknown module parameter 'kvm.ept'"],
  ['toString=1', "unknown module parameter 'toString'"],
  ['vpid=2', "module parameter vpid: '2' is not possible"],
  ['ple_window=1.5', "module parameter ple_window: '1.5' is not possible"],
  ['ple_window', "module parameter ple_window: '' is not possible"],
])('%s is refused', (text, message) => {
  expect(() => readModuleParams([text])).toThrow(message);
});
