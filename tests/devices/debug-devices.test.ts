/** Debug exit, debug console and fw_cfg on a board, by the accesses that guests make. */
import { expect, test } from 'vitest';
import { createBoard } from '../../lib/devices/board.js';
import { createDebugExit } from '../../lib/devices/debug-exit.js';
import { createDebugcon } from '../../lib/devices/debugcon.js';
import type { Device } from '../../lib/devices/device.js';
import { createFwCfg } from '../../lib/devices/fw-cfg.js';

const board = (...extra: Device[]) =>
  createBoard({
    clock: { now: () => 0, rate: 1e9, arm() {}, disarm() {} },
    onConsole() {},
    onReset() {},
    onPoweroff() {},
    extra,
  });

test.each<[1 | 2 | 4, number, number]>([
  [1, 0, 1],
  [1, 0x10, 0x21],
  [1, 0x1ff, 0x1ff],
  [2, 0x1234, 0x2469],
  [4, 0x10, 0x21],
  [4, 0x8000_0000, 1],
  [4, 0xffff_ffff, 0xffff_ffff],
])('debug exit: %i bytes of 0x%s', (size, value, status) => {
  const seen: number[] = [];
  const b = board(createDebugExit(0xf4, (s) => seen.push(s)) as Device);
  b.writePort(0xf4, size, value);
  expect(seen).toEqual([status]);
  expect(b.readPort(0xf4, size)).toBe(0);
});

test('the debug console takes bytes, and is found by reading its own port number', () => {
  const seen: number[] = [];
  const b = board(createDebugcon((c) => seen.push(c)) as Device);
  b.writePort(0xe9, 1, 0x141);
  b.writePort(0xe9, 2, 0x4342);
  expect(seen).toEqual([0x41, 0x42]);
  expect(b.readPort(0xe9, 1)).toBe(0xe9);
  expect(b.readPort(0xe9, 2)).toBe(0xffe9);
});

test.each<[string, number, number[]]>([
  ['signature', 0, [0x51, 0x45, 0x4d, 0x55, 0]],
  ['id', 1, [1, 0, 0, 0, 0]],
  ['RAM size', 3, [0, 0, 0, 0x20, 1, 0, 0, 0, 0]],
  ['CPUs', 5, [1, 0, 0]],
  ['CPUs at most', 15, [1, 0, 0]],
  ['the file directory, which is empty', 0x19, [0, 0, 0, 0]],
  ['a key of the architecture', 0x8002, [0, 0]],
])('fw_cfg: %s', (_what, key, bytes) => {
  const b = board(createFwCfg({ memory: 0x1_2000_0000 }) as Device);
  b.writePort(0x510, 2, key);
  expect(bytes.map(() => b.readPort(0x511, 1))).toEqual(bytes);
  b.writePort(0x510, 2, key);
  expect(b.readPort(0x511, 1)).toBe(bytes[0]);
});

test('fw_cfg takes the place of the marker, and its state is saved', () => {
  const b = board(createFwCfg({ memory: 4096 }) as Device);
  b.writePort(0x510, 2, 0);
  b.readPort(0x511, 1);
  const state = structuredClone(b.save());
  expect(b.readPort(0x511, 1)).toBe(0x45);
  b.load(state);
  expect(b.readPort(0x511, 1)).toBe(0x45);
});
