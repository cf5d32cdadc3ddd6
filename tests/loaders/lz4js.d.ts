declare module 'lz4js' {
  export function makeBuffer(size: number): Uint8Array;
  export function compressBound(size: number): number;
  export function compressBlock(
    source: Uint8Array,
    target: Uint8Array,
    start: number,
    length: number,
    hashTable: Uint32Array,
  ): number;
}
