/**
 * A minimal fw_cfg, QEMU's interface for facts about the machine (QEMU, "Firmware Configuration (fw_cfg) Device"):
 * a 16-bit write to 0x510 selects a key and its first byte, byte reads of 0x511 give the data, one byte after another.
 *
 * Keys: the signature, the interface's id (no DMA), RAM size, CPU counts. A key that is not there reads as zeros, as
 * does what lies beyond the end of an item. Not modelled: writing, DMA, files (the directory is empty).
 */
import type { Device } from './device.js';

export const FW_CFG_PORT = 0x510;
const KEY = { signature: 0x0000, id: 0x0001, ramSize: 0x0003, cpus: 0x0005, maxCpus: 0x000f } as const;
/** Bit 0: the port interface; bit 1, DMA, is 0. */
const ID_TRADITIONAL = 1;
/** Bits of the selector that are no part of the key: architecture-local items (none here), and the write channel. */
const WRITE_CHANNEL = 0x4000;

export interface FwCfgState {
  key: number;
  offset: number;
}

export interface FwCfgOptions {
  /** Bytes of guest memory. */
  readonly memory: number;
  readonly cpus?: number;
}

const littleEndian = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Math.floor(value / 256 ** i) % 256);

export const createFwCfg = (options: FwCfgOptions): Device<FwCfgState> => {
  const cpus = littleEndian(options.cpus ?? 1, 2);
  const items = new Map<number, readonly number[]>([
    [KEY.signature, [...'QEMU'].map((c) => c.charCodeAt(0))],
    [KEY.id, littleEndian(ID_TRADITIONAL, 4)],
    [KEY.ramSize, littleEndian(options.memory, 8)],
    [KEY.cpus, cpus],
    [KEY.maxCpus, cpus],
  ]);
  let s: FwCfgState = { key: 0, offset: 0 };
  const next = (): number => items.get(s.key)?.[s.offset++] ?? 0;
  return {
    name: 'fw-cfg',
    ports: [[FW_CFG_PORT, 2]],
    wide: true,
    read(_port, size) {
      // a wider read is that many byte reads
      let value = 0;
      for (let i = 0; i < Math.min(size, 4); i++) value |= next() << (8 * i);
      return value >>> 0;
    },
    write(port, size, value) {
      if (port === FW_CFG_PORT && size === 2) s = { key: value & 0xffff & ~WRITE_CHANNEL, offset: 0 };
    },
    save: () => ({ ...s }),
    load(state) {
      s = { ...state };
    },
  };
};
