import { describe, expect, test } from 'vitest';
import { LabError } from '../../lib/base/error.js';
import { benchOptions } from './options.js';

describe('options', () => {
  test('defaults', () => {
    expect(benchOptions([])).toEqual({
      runs: 3,
      only: ['ept', 'shadow', 'shadow-pti', 'qemu', 'bochs'],
      to: 'end',
    });
  });
  test('all of them; configurations run in one order', () => {
    const options = benchOptions(['--runs', '5', '--only=qemu,ept', '--to', 'init', '--json', 'bench.json']);
    expect(options).toEqual({ runs: 5, only: ['ept', 'qemu'], to: 'init', json: 'bench.json' });
  });
  test('help', () => expect(benchOptions(['--help'])).toBe('help'));

  test.each([
    [['--runs', '0'], /--runs: '0'/],
    [['--runs', '2.5'], /--runs: '2.5'/],
    [['--runs', '100'], /1 to 99/],
    [['--runs'], /--runs/],
    [['--only', 'ept,kvm'], /'kvm'.*ept, shadow, shadow-pti, qemu, bochs/],
    [['--only', ''], /--only: unknown name ''/],
    [['--to', 'now'], /--to: unknown name 'now'/],
    [['--json', '/no/such/folder/x.json'], /no folder/],
    [['--fast'], /--fast/],
    [['ept'], /ept/],
  ] as const)('%j is refused', (args, message) => {
    expect(() => benchOptions(args)).toThrow(LabError);
    expect(() => benchOptions(args)).toThrow(message);
  });
});
