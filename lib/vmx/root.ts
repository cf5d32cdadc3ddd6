/**
 * The registers of VMX root operation that VM entry and exit switch.
 *
 * The TypeScript hypervisor is the host, so loading the host state is nominal: the guest's values stay in the processor
 * state, and what host software would find in the switched MSRs and debug registers is kept here. SDM volume 3,
 * "Loading Host Control Registers, Debug Registers, MSRs".
 */
import { EFER } from '../isa/state.js';
import { EXIT_CONTROL } from './controls.js';
import { ROW } from './fields.js';
import type { CurrentVmcs } from './vmcs.js';

/** MSRs that every VM exit loads from the host-state area. */
const HOST_ROWS: ReadonlyMap<number, number> = new Map([
  [0x174, ROW.hostSysenterCs],
  [0x175, ROW.hostSysenterEsp],
  [0x176, ROW.hostSysenterEip],
  [0xc000_0100, ROW.hostFsBase],
  [0xc000_0101, ROW.hostGsBase],
]);

export class RootState {
  efer = EFER.sce | EFER.lme | EFER.lma | EFER.nxe;
  pat = 0x0007_0406_0007_0406n;
  dr7 = 0x400n;
  debugctl = 0n;
  /** Values of `HOST_ROWS` written since the last VM exit. */
  private readonly written = new Map<number, bigint>();

  /** Loads what a VM exit loads. `efer` and `pat`: the guest's, kept where no control loads the host's. */
  load(fields: CurrentVmcs, exitControls: number, efer: number, pat: bigint): void {
    this.efer =
      (exitControls & EXIT_CONTROL.loadHostEfer) !== 0
        ? fields.lo32(ROW.hostEfer)
        : efer | EFER.lma | EFER.lme;
    this.pat = (exitControls & EXIT_CONTROL.loadHostPat) !== 0 ? fields.big(ROW.hostPat) : pat;
    this.dr7 = 0x400n;
    this.debugctl = 0n;
    if (this.written.size !== 0) this.written.clear();
  }

  /** Value of a switched MSR in root operation, or undefined for others. */
  read(msr: number, fields: CurrentVmcs): bigint | undefined {
    if (msr === 0xc000_0080) return BigInt(this.efer);
    if (msr === 0x277) return this.pat;
    if (msr === 0x1d9) return this.debugctl;
    const row = HOST_ROWS.get(msr);
    return row === undefined ? undefined : (this.written.get(msr) ?? fields.big(row));
  }

  /** WRMSR of a switched MSR in root operation; false for others. */
  write(msr: number, value: bigint): boolean {
    if (msr === 0xc000_0080) this.efer = Number(value);
    else if (msr === 0x277) this.pat = value;
    else if (msr === 0x1d9) this.debugctl = value;
    else if (HOST_ROWS.has(msr)) this.written.set(msr, value);
    else return false;
    return true;
  }
}
