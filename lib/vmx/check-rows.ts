/** All rules of VM entry, in the order in which they are checked. */
import { InvariantError } from '../base/error.js';
import type { CheckRow } from './checks.js';
import { CONTROL_CHECKS } from './checks-controls.js';
import { GUEST_CHECKS } from './checks-guest.js';
import { HOST_CHECKS } from './checks-host.js';

export const CHECKS: readonly CheckRow[] = [...CONTROL_CHECKS, ...HOST_CHECKS, ...GUEST_CHECKS];
{
  const ids = new Set<string>();
  for (const { id } of CHECKS) {
    if (ids.has(id)) throw new InvariantError(`two VM-entry checks have the id ${id}`);
    ids.add(id);
  }
}
