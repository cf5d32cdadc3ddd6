/**
 * What the guest read through the lab's CPUID leaves, from the serial console.
 *
 * The guest prints `[vmxlab] leaves NAME`, the output of Debian's `cpuid` tool for the total and for every exit type
 * (`   0x4ffffffe 0x0a: eax=0x0002b3cd ebx=…`), and `[vmxlab] leaves end`.
 */
export interface LeafRegisters {
  readonly leaf: number;
  readonly subleaf: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

export interface Reading {
  /** `boot` or `workload`: after which phase the guest read. */
  readonly name: string;
  /** All queries in order. */
  readonly queries: readonly LeafRegisters[];
}

const LINE =
  /^\s*0x([0-9a-f]{8}) 0x([0-9a-f]+): eax=0x([0-9a-f]{8}) ebx=0x([0-9a-f]{8}) ecx=0x([0-9a-f]{8}) edx=0x([0-9a-f]{8})/;

/** All complete readings on a console, in order; a reading that was cut off is left out. */
export const readings = (console: string): Reading[] => {
  const out: Reading[] = [];
  let name: string | undefined;
  let queries: LeafRegisters[] = [];
  for (const raw of console.split('\n')) {
    const line = raw.replace(/\r$/, '');
    const mark = /^\[vmxlab\] leaves (\w+)/.exec(line);
    if (mark !== null) {
      if (mark[1] === 'end') {
        if (name !== undefined) out.push({ name, queries });
        name = undefined;
      } else {
        name = mark[1];
        queries = [];
      }
      continue;
    }
    const m = name === undefined ? null : LINE.exec(line);
    if (m === null) continue;
    const [leaf, subleaf, eax, ebx, ecx, edx] = m.slice(1).map((h) => Number.parseInt(h, 16));
    queries.push({ leaf: leaf!, subleaf: subleaf!, eax: eax!, ebx: ebx!, ecx: ecx!, edx: edx! });
  }
  return out;
};

/** Counts by exit type of one reading: what EAX of the by-type leaf was; undefined types (EDX all ones) are left out. */
export const countsOf = (reading: Reading, byReason: number): Record<number, number> => {
  const out: Record<number, number> = {};
  for (const q of reading.queries) if (q.leaf === byReason && q.edx !== 0xffff_ffff) out[q.subleaf] = q.eax;
  return out;
};
