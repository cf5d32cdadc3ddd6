/**
 * Names for addresses: sorted symbols, found by address (the one that begins at or before it) or by name.
 *
 * Addresses are 64-bit; a table keeps the low halves of those that share one high half, as a kernel's do. Of several
 * names of one address the first wins, as in the kernel's own listings.
 */

export interface NamedAddress {
  readonly name: string;
  readonly address: bigint;
  /** Bytes from the symbol's beginning. */
  readonly offset: number;
  /** Bytes to the next symbol; 0 when unknown. */
  readonly size: number;
  /** `name+0x1f/0x40`, as the kernel prints it; the name alone at its beginning. */
  readonly text: string;
}

export interface SymbolTable {
  readonly count: number;
  /** The symbol that an address lies in, or undefined. */
  at(address: bigint): NamedAddress | undefined;
  /** Where a symbol begins, or undefined. */
  find(name: string): bigint | undefined;
}

export interface SymbolSource {
  /** High halves are all this one. */
  readonly high: number;
  /** Low halves, ascending. */
  readonly lows: Uint32Array;
  /** Name of the i-th symbol. */
  readonly name: (i: number) => string;
  /** First low half that belongs to no symbol any more. */
  readonly end: number;
}

/** @param slide what the running kernel adds to every address (KASLR); 0 with `nokaslr` and for the lab's own loader */
export const symbolTable = (source: SymbolSource, slide = 0n): SymbolTable => {
  const { high, lows, end } = source;
  let names: Map<string, number> | undefined;
  const address = (i: number): bigint => ((BigInt(high) << 32n) | BigInt(lows[i] as number)) + slide;
  return {
    count: lows.length,
    at(wanted) {
      const linked = BigInt.asUintN(64, wanted - slide);
      if (Number(linked >> 32n) !== high || lows.length === 0) return undefined;
      const low = Number(linked & 0xffff_ffffn);
      if (low < (lows[0] as number) || low >= end) return undefined;
      let from = 0;
      let to = lows.length;
      while (to - from > 1) {
        const middle = (from + to) >>> 1;
        if ((lows[middle] as number) <= low) from = middle;
        else to = middle;
      }
      while (from > 0 && lows[from - 1] === lows[from]) from--;
      const begin = lows[from] as number;
      let next = from + 1;
      while (next < lows.length && lows[next] === begin) next++;
      const size = (lows[next] ?? end) - begin;
      const name = source.name(from);
      const offset = low - begin;
      const text = offset === 0 ? name : `${name}+0x${offset.toString(16)}/0x${size.toString(16)}`;
      return { name, address: address(from), offset, size, text };
    },
    find(name) {
      if (names === undefined) {
        names = new Map();
        for (let i = lows.length - 1; i >= 0; i--) names.set(source.name(i), i);
      }
      const i = names.get(name);
      return i === undefined ? undefined : address(i);
    },
  };
};

/** A table of listed symbols; those with another high half than the first are left out. @param end first address behind the last */
export const listedSymbols = (
  listed: readonly { readonly name: string; readonly value: bigint }[],
  end?: bigint,
  slide = 0n,
): SymbolTable => {
  const sorted = listed
    .map((s) => ({ name: s.name, value: BigInt.asUintN(64, s.value) }))
    .sort((a, b) => (a.value < b.value ? -1 : a.value > b.value ? 1 : 0));
  const high = Number((sorted[sorted.length - 1]?.value ?? 0n) >> 32n);
  const kept = sorted.filter((s) => Number(s.value >> 32n) === high);
  const lows = Uint32Array.from(kept, (s) => Number(s.value & 0xffff_ffffn));
  const name = (i: number): string => (kept[i] as { name: string }).name;
  const last = end === undefined ? 2 ** 32 : Number(BigInt.asUintN(64, end) & 0xffff_ffffn);
  return symbolTable({ high, lows, name, end: last }, slide);
};
