/**
 * What changed in the VMCS between two runs: control bits by the SDM's names, other control fields by value.
 * SDM volume 3, "VM-Execution Control Fields". The pin-based, entry and exit controls are words of bits like the
 * processor-based ones; interrupt-window exiting and its like, which come and go during a run, are shown as they ended.
 */
import { CONTROL_WORDS, CONTROLS } from '../vmx/controls.js';

type Controls = Readonly<Record<string, bigint>>;

export interface ChangedControl {
  /** The VMCS field, as `vmx/fields.ts` calls it. */
  readonly field: string;
  /** The control bit in the SDM's words, or `value`. */
  readonly control: string;
  readonly ept: string;
  readonly shadow: string;
}

const hex = (v: bigint | undefined): string => (v === undefined ? 'absent' : `0x${v.toString(16)}`);

/** One row a difference, in the order of the fields of the first run. */
export const changedControls = (ept: Controls, shadow: Controls): ChangedControl[] =>
  Object.keys(ept).flatMap((field): ChangedControl[] => {
    const a = ept[field] ?? 0n;
    const b = shadow[field];
    if (b === undefined || a === b) return [];
    const word = Object.entries(CONTROL_WORDS).find(([, w]) => w.field === field)?.[0];
    if (word === undefined) return [{ field, control: 'value', ept: hex(a), shadow: hex(b) }];
    const on = (v: bigint, bit: number): string => (((v >> BigInt(bit)) & 1n) === 1n ? 'on' : 'off');
    return CONTROLS.filter((c) => c.word === word && on(a, c.bit) !== on(b, c.bit)).map((c) => ({
      field,
      control: c.sdm,
      ept: on(a, c.bit),
      shadow: on(b, c.bit),
    }));
  });
