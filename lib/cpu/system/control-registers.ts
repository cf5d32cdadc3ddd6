/**
 * MOV to and from CR0-CR8, CLTS, LMSW, SMSW, and the mode switches that they make.
 *
 * SDM volume 3, "Control Registers" and "Initializing IA-32e Mode"; checks of values come after VM exits. In VMX non-root
 * operation `cpu.guest` supplies what the guest reads and keeps the bits that the host owns. MAXPHYADDR is 40.
 * Not modelled: CR4.VME, PVI, LA57, SMXE, PKE, CET (reserved: #GP), and the fixed bits of VMX operation.
 */
import { CR0, CR4, EFER, S, SEG } from '../../isa/state.js';
import { LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { AR, attrOf, longMode, modeChanged } from './segments.js';

/** Physical address width. */
export const MAXPHYADDR = 40;
const CR3_RESERVED = ~((1n << BigInt(MAXPHYADDR)) - 1n) & 0xffff_ffff_ffff_ffffn;

const CR0_DEFINED =
  (CR0.pe | CR0.mp | CR0.em | CR0.ts | CR0.et | CR0.ne | CR0.wp | CR0.am | CR0.nw | CR0.cd | CR0.pg) >>> 0;
/** Bits of CR4 that may be 1. */
export const CR4_DEFINED =
  CR4.tsd |
  CR4.de |
  CR4.pse |
  CR4.pae |
  CR4.mce |
  CR4.pge |
  CR4.pce |
  CR4.osfxsr |
  CR4.osxmmexcpt |
  CR4.umip |
  CR4.vmxe |
  CR4.fsgsbase |
  CR4.pcide |
  CR4.osxsave |
  CR4.smep |
  CR4.smap;
/** Bits of CR4 whose change invalidates translations. */
const CR4_PAGING = CR4.pse | CR4.pae | CR4.pge | CR4.pcide | CR4.smep | CR4.smap;

const PDPTE_RESERVED = CR3_RESERVED | 0x1e6n;

/**
 * Loads the PDPTEs of PAE paging from memory, through EPT where that is on; #GP(0) when a present one has a reserved bit
 * set (SDM volume 3, "PDPTE Registers").
 */
export const loadPdptes = (cpu: Cpu, cr3: number): boolean => {
  const base = cpu.mmu.physical(cr3 - (cr3 % 32));
  if (base === LEFT) return false;
  if (!cpu.ram.has(base, 32)) return cpu.gp();
  const entries = [0, 8, 16, 24].map((offset) => cpu.ram.read64(base + offset));
  if (entries.some((e) => (e & 1n) !== 0n && (e & PDPTE_RESERVED) !== 0n)) return cpu.gp();
  entries.forEach((entry, i) => {
    cpu.set64(S.pdpte + 8 * i, entry);
  });
  return true;
};

/** PAE paging outside IA-32e mode, which keeps PDPTEs. */
const legacyPae = (cr0: number, cr4: number, efer: number): boolean =>
  (cr0 & CR0.pg) !== 0 && (cr4 & CR4.pae) !== 0 && (efer & EFER.lme) === 0;

/** Puts a value into CR0 with all that follows; false with #GP(0) or an exit recorded. */
export const setCr0 = (cpu: Cpu, value: bigint): boolean => {
  if (value >> 32n !== 0n) return cpu.gp();
  const v = ((Number(value) & CR0_DEFINED) | CR0.et) >>> 0;
  const old = cpu.get32(S.cr0);
  const paging = (v & CR0.pg) !== 0;
  if (paging && (v & CR0.pe) === 0) return cpu.gp();
  if ((v & CR0.nw) !== 0 && (v & CR0.cd) === 0) return cpu.gp();
  const changed = v ^ old;
  const cr4 = cpu.get32(S.cr4);
  const efer = cpu.get32(S.efer);
  if ((changed & CR0.pg) !== 0) {
    if (paging && (efer & EFER.lme) !== 0) {
      if ((cr4 & CR4.pae) === 0 || (attrOf(cpu, SEG.cs) & AR.l) !== 0) return cpu.gp();
    }
    if (!paging && (cpu.get32(S.mode) === 64 || (cr4 & CR4.pcide) !== 0)) return cpu.gp();
  }
  if (legacyPae(v, cr4, efer) && (changed & (CR0.pg | CR0.cd | CR0.nw)) !== 0) {
    if (!loadPdptes(cpu, cpu.getNumber(S.cr3) % 0x1_0000_0000)) return false;
  }
  cpu.set64(S.cr0, BigInt(v));
  if ((changed & CR0.pg) !== 0 && (efer & EFER.lme) !== 0) {
    cpu.set64(S.efer, BigInt(paging ? efer | EFER.lma : efer & ~EFER.lma));
  }
  if ((changed & (CR0.pg | CR0.wp | CR0.pe)) !== 0) cpu.mmu.flushAll();
  modeChanged(cpu);
  return true;
};

/** Puts a value into CR4. */
export const setCr4 = (cpu: Cpu, value: bigint): boolean => {
  if ((value & ~BigInt(CR4_DEFINED)) !== 0n) return cpu.gp();
  const v = Number(value);
  const old = cpu.get32(S.cr4);
  const changed = v ^ old;
  const long = longMode(cpu);
  if (long && (v & CR4.pae) === 0) return cpu.gp();
  if ((changed & v & CR4.pcide) !== 0 && (!long || (cpu.get64(S.cr3) & 0xfffn) !== 0n)) return cpu.gp();
  if (
    legacyPae(cpu.get32(S.cr0), v, cpu.get32(S.efer)) &&
    (changed & (CR4.pae | CR4.pge | CR4.pse | CR4.smep)) !== 0
  ) {
    if (!loadPdptes(cpu, cpu.getNumber(S.cr3) % 0x1_0000_0000)) return false;
  }
  cpu.set64(S.cr4, BigInt(v));
  if ((changed & CR4_PAGING) !== 0) cpu.mmu.flushAll();
  cpu.mmu.contextChanged();
  return true;
};

/** Puts a value into CR3; bit 63 with CR4.PCIDE keeps the translations of the new PCID. */
export const setCr3 = (cpu: Cpu, value: bigint): boolean => {
  let v = value;
  let keep = false;
  if ((cpu.get32(S.cr4) & CR4.pcide) !== 0) {
    keep = v >> 63n !== 0n;
    v &= 0x7fff_ffff_ffff_ffffn;
  }
  if ((v & CR3_RESERVED) !== 0n) return cpu.gp();
  if (
    legacyPae(cpu.get32(S.cr0), cpu.get32(S.cr4), cpu.get32(S.efer)) &&
    !loadPdptes(cpu, Number(v & 0xffff_ffffn))
  )
    return false;
  cpu.set64(S.cr3, v);
  cpu.mmu.loadCr3(keep);
  return true;
};

const setTaskPriority = (cpu: Cpu, value: bigint): boolean => {
  if (value > 15n) return cpu.gp();
  cpu.set64(S.cr8, value);
  return true;
};

/** args: control register, general register, value. */
const movToCr: Helper = (cpu) => {
  const cr = cpu.arg32(0);
  const value = cpu.arg64(2);
  const guest = cpu.guest;
  if (cr !== 2 && guest?.movToCr(cr, cpu.arg32(1), value) === true) return false;
  switch (cr) {
    case 0:
      if (value >> 32n !== 0n) return cpu.gp();
      return setCr0(cpu, guest === undefined ? value : guest.writeCr0(value));
    case 2:
      cpu.set64(S.cr2, value);
      return true;
    case 3:
      return setCr3(cpu, value);
    case 4:
      return setCr4(cpu, guest === undefined ? value : guest.writeCr4(value));
    case 8:
      return setTaskPriority(cpu, value);
    default:
      return cpu.ud();
  }
};

const visibleCr0 = (cpu: Cpu): bigint => cpu.guest?.readCr0(cpu.get64(S.cr0)) ?? cpu.get64(S.cr0);

/** args: control register, general register; result: value. */
const movFromCr: Helper = (cpu) => {
  const cr = cpu.arg32(0);
  const guest = cpu.guest;
  if ((cr === 3 || cr === 8) && guest?.movFromCr(cr, cpu.arg32(1)) === true) return false;
  switch (cr) {
    case 0:
      cpu.result64(0, visibleCr0(cpu));
      return true;
    case 2:
      cpu.result64(0, cpu.get64(S.cr2));
      return true;
    case 3:
      cpu.result64(0, cpu.get64(S.cr3));
      return true;
    case 4:
      cpu.result64(0, guest?.readCr4(cpu.get64(S.cr4)) ?? cpu.get64(S.cr4));
      return true;
    case 8:
      cpu.result64(0, cpu.get64(S.cr8));
      return true;
    default:
      return cpu.ud();
  }
};

const clts: Helper = (cpu) => {
  const guest = cpu.guest;
  if (guest?.clts() === true) return false;
  const real = cpu.get64(S.cr0);
  const wanted = (guest?.readCr0(real) ?? real) & ~BigInt(CR0.ts);
  cpu.set64(S.cr0, guest?.writeCr0(wanted) ?? wanted);
  cpu.mmu.contextChanged();
  return true;
};

/** args: source (16 bits), 1 for a memory operand, its linear address. PE can be set, not cleared. */
const lmsw: Helper = (cpu) => {
  const source = cpu.arg32(0) & 0xffff;
  const guest = cpu.guest;
  if (guest?.lmsw(source, cpu.arg32(1) !== 0, cpu.arg64(2)) === true) return false;
  const seen = visibleCr0(cpu);
  const wanted = (seen & ~0xen) | BigInt(source & 15);
  return setCr0(cpu, guest?.writeCr0(wanted) ?? wanted);
};

/** result: CR0 as SMSW stores it. #GP(0) under UMIP. */
const smsw: Helper = (cpu) => {
  if (!mayStoreSystem(cpu)) return false;
  cpu.result64(0, visibleCr0(cpu));
  return true;
};

/** SGDT, SIDT, SLDT, STR and SMSW outside CPL 0 need CR4.UMIP = 0. */
export const mayStoreSystem = (cpu: Cpu): boolean =>
  cpu.get32(S.cpl) === 0 || (cpu.get32(S.cr4) & CR4.umip) === 0 || cpu.gp();

export const CONTROL_REGISTER_HELPERS: HelperTable = { movToCr, movFromCr, clts, lmsw, smsw };
