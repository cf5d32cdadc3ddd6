/**
 * The devices that test kernels written for QEMU look for, and that a machine has only when asked: debug exit, debug
 * console, fw_cfg. They come after the board's own devices and so take the ports that both name (fw_cfg the marker's).
 */
import { hex } from '../base/bits.js';
import { LabError } from '../base/error.js';
import type { Board } from '../devices/board.js';
import { createDebugExit, DEBUG_EXIT_PORTS } from '../devices/debug-exit.js';
import { createDebugcon } from '../devices/debugcon.js';
import type { Device } from '../devices/device.js';
import { createFwCfg } from '../devices/fw-cfg.js';

export interface ExtraDeviceOptions {
  /** Port of the debug-exit device. */
  readonly debugExit?: number;
  /** The debug console at port 0xE9. */
  readonly debugConsole: boolean;
  readonly fwCfg: boolean;
  /** Bytes of guest memory. */
  readonly memory: number;
  readonly onExit: (status: number) => void;
  readonly onConsole: (byte: number) => void;
}

/** @throws LabError for a debug-exit port that is none */
export const extraDevices = (o: ExtraDeviceOptions): readonly Device[] => {
  const { debugExit } = o;
  if (
    debugExit !== undefined &&
    (!Number.isInteger(debugExit) || debugExit < 0 || debugExit + DEBUG_EXIT_PORTS > 0x1_0000)
  ) {
    throw new LabError(
      'machine.debug-exit',
      `${debugExit} is no port for debug exit`,
      'QEMU users take 0xf4',
    );
  }
  return [
    ...(debugExit === undefined ? [] : [createDebugExit(debugExit, o.onExit) as Device]),
    ...(o.debugConsole ? [createDebugcon(o.onConsole) as Device] : []),
    ...(o.fwCfg ? [createFwCfg({ memory: o.memory }) as Device] : []),
  ];
};

/** @throws LabError when the debug-exit ports are those of another device */
export const checkDebugExit = (board: Board, port: number): void => {
  for (const device of board.devices) {
    if (device.name === 'debug-exit') continue;
    const taken = device.ports?.find(
      ([first, count]) => first < port + DEBUG_EXIT_PORTS && port < first + count,
    );
    if (taken !== undefined) {
      throw new LabError(
        'machine.debug-exit',
        `debug exit at ports ${hex(port)}-${hex(port + DEBUG_EXIT_PORTS - 1)} meets ${device.name} at ${hex(taken[0])}`,
        'QEMU users take 0xf4',
      );
    }
  }
};
