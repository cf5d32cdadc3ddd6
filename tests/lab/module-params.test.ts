import { expect, test } from 'vitest';
import { readModuleParams } from '../../lib/lab/module-params.js';

test.each([
  [['ept=N'], { ept: false }, {}],
  [['kvm_intel.vpid=0', 'kvm-intel.ple_gap=0'], { vpid: false, ple_gap: 0 }, {}],
  [['kvm.ignore_msrs', 'report_ignored_msrs=off'], {}, { ignore_msrs: true, report_ignored_msrs: false }],
  [['vpid=N', 'vpid=y'], { vpid: true }, {}],
  [
    ['lapic_timer_advance_ns=-1', 'nx_huge_pages=force'],
    {},
    { lapic_timer_advance_ns: -1, nx_huge_pages: 'force' },
  ],
])('%j', (texts, intel, kvm) => {
  expect(readModuleParams(texts)).toEqual({ 'kvm-intel': intel, kvm });
});

test.each([
  ['nothing=1', "unknown parameter 'nothing' (valid names: of kvm-intel ept, vpid, "],
  ['kvm.ept=N', "'kvm.ept': ept is a parameter of kvm-intel"],
  ['toString=1', "unknown parameter 'toString'"],
  ['vpid=2', "parameter 'vpid' takes Y or N, not '2'"],
  ['ple_window=1.5', "parameter 'ple_window' takes a number (uint), not '1.5'"],
  ['ple_window', "parameter 'ple_window' takes a number (uint), not 'Y'"],
])('%s is refused', (text, message) => {
  expect(() => readModuleParams([text])).toThrow(message);
});
