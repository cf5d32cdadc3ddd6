/**
 * A guest that can make no progress ends with a limit. With SMAP and RFLAGS.AC an event that is delivered through an IDT
 * in a user page faults implicitly; a shadow walk does not know that the access is implicit, permits it, and the same
 * fault comes back for ever, as on KVM, whose error code does not tell either. With EPT the guest gets its faults.
 */
import { expect, test } from 'vitest';
import { CR4 } from '../../lib/isa/state.js';
import { CR4_USUAL, IDT, micro, U } from './kvm-behaviour/micro.js';

const run = (ept: boolean) =>
  micro({
    ept,
    cr4: CR4_USUAL | CR4.smap,
    source: `stac\nmov [${IDT + 3 * 16}], rax\nint3\n`,
    tables: (t) => {
      const at = t.entry(BigInt(IDT));
      t.set(at, t.get(at) | U);
      return undefined;
    },
  });

test('shadow: exits without an instruction end the run, and say so', () => {
  const { outcome } = run(false);
  expect(outcome.kind).toBe('limit');
  expect(outcome.detail).toMatch(/200000 VM exits in a row, the last for reason 0.* at rip 0x1/);
});

test('EPT: a triple fault', () => {
  expect(run(true).outcome.kind).toBe('triple-fault');
});
