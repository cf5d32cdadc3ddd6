import { expect, test } from 'vitest';
import { isExplained } from '../../lib/lab/trace-explain.js';
import { portName } from '../../lib/lab/trace-explain-io.js';
import { EXIT_REASONS } from '../../lib/vmx/exit-reasons.js';

test('every reason that KVM handles has words, but those that cannot happen here', () => {
  const silent = EXIT_REASONS.filter((r) => r.handled && !isExplained(r.number)).map((r) => r.name);
  expect(silent).toEqual(['machineCheck', 'virtualizedEoi', 'apicWrite', 'busLock', 'instructionTimeout']);
});

test('ports are named', () => {
  expect(portName(0x3f8)).toBe('serial port COM1, the console');
  expect(portName(0x43)).toBe('the 8254 timer');
  expect(portName(0x9999)).toBeUndefined();
});
