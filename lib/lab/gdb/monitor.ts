/** GDB's `monitor` commands: the VMCS, walks of guest page tables, and the exit counters. */
import type { Machine } from '../machine.js';
import { walkText } from './walk.js';

interface MonitorRow {
  readonly name: string;
  readonly says: string;
  readonly run: (machine: Machine, words: readonly string[]) => string;
}

const exitsText = ({ vm }: Machine): string => {
  const lines = vm.hypervisor.counts.lines().map((l) => `${String(l.exits).padStart(12)}  ${l.name}\n`);
  return lines.length === 0 ? 'no exits yet\n' : lines.join('');
};

const address = (word: string | undefined): bigint | undefined =>
  word !== undefined && /^(0x[0-9a-f]{1,16}|[0-9]{1,20})$/i.test(word)
    ? BigInt.asUintN(64, BigInt(word))
    : undefined;

const ROWS: readonly MonitorRow[] = [
  {
    name: 'vmcs',
    says: 'vmcs          the fields of the VMCS',
    run: ({ vm }) => `${vm.describe()}\n`,
  },
  {
    name: 'walk',
    says: 'walk ADDR     the walk of the guest page tables for a linear address',
    run: ({ vm }, [word]) => {
      const linear = address(word);
      return linear === undefined
        ? `walk: '${word ?? ''}' is no address, like 0x1000\n`
        : walkText(vm, linear);
    },
  },
  { name: 'exits', says: 'exits         VM exits by reason', run: exitsText },
];

/** What a monitor command prints. */
export const monitor = (machine: Machine, line: string): string => {
  const [name, ...words] = line.trim().split(/\s+/);
  const row = ROWS.find((r) => r.name === name);
  if (row !== undefined) return row.run(machine, words);
  const help = ROWS.map((r) => `  ${r.says}\n`).join('');
  return name === 'help' || name === ''
    ? `monitor commands:\n${help}`
    : `there is no command '${name}'\n${help}`;
};
