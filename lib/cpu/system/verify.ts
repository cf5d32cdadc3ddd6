/**
 * LAR, LSL, VERR and VERW: what software may learn about a selector without a fault.
 *
 * SDM volume 2, LAR, LSL, VERR/VERW. Null selectors, selectors outside their table and descriptors that are too
 * privileged are answered with ZF = 0.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import {
  AR,
  type Descriptor,
  descriptorAddress,
  descriptorLimit,
  dplOf,
  fetchDescriptor,
  isCode,
  isWritableData,
  longMode,
} from './segments.js';

const SYSTEM_LAR = { legacy: [1, 2, 3, 4, 5, 9, 11, 12], long: [2, 9, 11, 12] };
const SYSTEM_LSL = { legacy: [1, 2, 3, 9, 11], long: [2, 9, 11] };

/**
 * The descriptor that LAR, LSL, VERR and VERW may see: `undefined` when there is none (ZF = 0), 'left' on a fault.
 * @param system system types that are visible
 */
const visible = (cpu: Cpu, selector: number, system: readonly number[]): Descriptor | 'left' | undefined => {
  if ((selector & 0xfffc) === 0) return undefined;
  const at = descriptorAddress(cpu, selector, 8);
  if (at === undefined) return undefined;
  const d = fetchDescriptor(cpu, selector, at);
  if (d === undefined) return 'left';
  if ((d.attr & AR.s) === 0 && !system.includes(d.attr & 15)) return undefined;
  const conforming = isCode(d.attr) && (d.attr & AR.conforming) !== 0;
  return !conforming && Math.max(cpu.get32(S.cpl), selector & 3) > dplOf(d.attr) ? undefined : d;
};

const report = (cpu: Cpu, d: Descriptor | 'left' | undefined, value: (d: Descriptor) => number): boolean => {
  if (d === 'left') return false;
  cpu.result32(0, d === undefined ? 0 : 1);
  cpu.result32(1, d === undefined ? 0 : value(d) >>> 0);
  return true;
};
/** arg: selector; results: ZF, access rights. */
const lar: Helper = (cpu) =>
  report(
    cpu,
    visible(cpu, cpu.arg32(0) & 0xffff, longMode(cpu) ? SYSTEM_LAR.long : SYSTEM_LAR.legacy),
    (d) => d.hi & 0x00ff_ff00,
  );
/** arg: selector; results: ZF, limit in bytes. */
const lsl: Helper = (cpu) =>
  report(
    cpu,
    visible(cpu, cpu.arg32(0) & 0xffff, longMode(cpu) ? SYSTEM_LSL.long : SYSTEM_LSL.legacy),
    descriptorLimit,
  );
/** args: selector, 1 for VERW; result: ZF. */
const verify: Helper = (cpu) => {
  const d = visible(cpu, cpu.arg32(0) & 0xffff, []);
  if (d === 'left') return false;
  const readable = d !== undefined && ((d.attr & AR.code) === 0 || (d.attr & AR.writable) !== 0);
  cpu.result32(0, d !== undefined && (cpu.arg32(1) !== 0 ? isWritableData(d.attr) : readable) ? 1 : 0);
  return true;
};

export const VERIFY_HELPERS: HelperTable = { lar, lsl, verify };
