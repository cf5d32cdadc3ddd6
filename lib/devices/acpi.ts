/**
 * The ACPI tables of the machine: RSDP, XSDT, FADT, FACS, DSDT, MADT (ACPI specification 2.0c and 3.0 layouts).
 *
 * Just enough for an operating system to find the local APIC and the I/O APIC and to power off through PM1a: a FADT of
 * revision 3 that is not hardware-reduced, and a DSDT that holds `Name (_S5, …)` or nothing at all.
 * Everything lies in one block in the BIOS area, where the RSDP is found by search.
 */
import { PM1A_CONTROL_PORT, PM1A_EVENT_PORT } from './acpi-pm.js';
import { IOAPIC_BASE } from './ioapic.js';
import { LAPIC_BASE } from './lapic.js';

export const ACPI_TABLES_GPA = 0xe_0000;
const SCI_IRQ = 9;
const OEM_ID = 'VMXLAB';
const OEM_TABLE = 'VMXLABPC';
const CREATOR = 'VMXL';
const HEADER_BYTES = 36;
const FADT_BYTES = 244;
const FADT_FLAGS = { wbinvd: 1, powerButton: 1 << 4, sleepButton: 1 << 5 } as const;
const BOOT_LEGACY_DEVICES = 1;
/** Latencies above these say "no C2" (100 µs) and "no C3" (1000 µs). */
const NO_C_STATE = 0xfff;
const MADT_PCAT_COMPAT = 1;
/** Sleep type written to PM1a control for S5. */
const S5_TYPE = 5;

export interface AcpiOptions {
  /** Leaves the DSDT empty: no S5, so Linux cannot power itself off. Default false. */
  readonly emptyDsdt?: boolean;
  /** Says that ISA line 0 is global interrupt 2; must agree with the board. Default false. */
  readonly irq0Override?: boolean;
  readonly gpa?: number;
}

export interface AcpiTables {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** Guest-physical address by signature. */
  readonly at: Readonly<Record<'RSD PTR ' | 'XSDT' | 'FACP' | 'FACS' | 'DSDT' | 'APIC', number>>;
}

const ascii = (text: string): number[] => [...text].map((c) => c.charCodeAt(0));
const word = (v: number): number[] => [v & 0xff, (v >> 8) & 0xff];
const dword = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24];

/** Makes bytes [0, length) sum to 0 modulo 256 through the byte at `at`. */
const checksum = (bytes: Uint8Array, at: number, length = bytes.length): void => {
  bytes[at] = 0;
  let sum = 0;
  for (let i = 0; i < length; i++) sum += bytes[i];
  bytes[at] = -sum & 0xff;
};

/** A system description table with its header and checksum. */
const table = (signature: string, revision: number, body: readonly number[]): Uint8Array => {
  const bytes = Uint8Array.from([
    ...ascii(signature),
    ...dword(HEADER_BYTES + body.length),
    revision,
    0,
    ...ascii(OEM_ID),
    ...ascii(OEM_TABLE),
    ...dword(1),
    ...ascii(CREATOR),
    ...dword(1),
    ...body,
  ]);
  checksum(bytes, 9);
  return bytes;
};

/** Name (_S5, Package (4) {5, 5, 0, 0}) in AML: NameOp, name, PackageOp, length, count, byte constants, ZeroOps. */
const S5_AML = [0x08, ...ascii('_S5_'), 0x12, 0x08, 0x04, 0x0a, S5_TYPE, 0x0a, S5_TYPE, 0x00, 0x00];

const facs = (): Uint8Array => {
  const bytes = new Uint8Array(64);
  bytes.set([...ascii('FACS'), ...dword(64)]);
  bytes[32] = 1;
  return bytes;
};

const fadt = (facsGpa: number, dsdtGpa: number): Uint8Array => {
  const body = new Uint8Array(FADT_BYTES - HEADER_BYTES);
  const put = (offset: number, bytes: number[]): void => body.set(bytes, offset - HEADER_BYTES);
  /** Generic address of an I/O port: space 1, width in bits, word access. */
  const gas = (port: number, bits: number): number[] => [1, bits, 0, 2, ...dword(port), 0, 0, 0, 0];
  put(36, dword(facsGpa));
  put(40, dword(dsdtGpa));
  put(46, word(SCI_IRQ));
  put(56, dword(PM1A_EVENT_PORT));
  put(64, dword(PM1A_CONTROL_PORT));
  put(88, [4, 2]);
  put(96, word(NO_C_STATE));
  put(98, word(NO_C_STATE));
  put(109, word(BOOT_LEGACY_DEVICES));
  put(112, dword(FADT_FLAGS.wbinvd | FADT_FLAGS.powerButton | FADT_FLAGS.sleepButton));
  put(132, dword(facsGpa));
  put(140, dword(dsdtGpa));
  put(148, gas(PM1A_EVENT_PORT, 32));
  put(172, gas(PM1A_CONTROL_PORT, 16));
  return table('FACP', 3, [...body]);
};

const madt = (irq0Override: boolean): Uint8Array =>
  table('APIC', 3, [
    ...dword(LAPIC_BASE),
    ...dword(MADT_PCAT_COMPAT),
    // Local APIC: processor 0, APIC id 0, enabled.
    ...[0, 8, 0, 0, ...dword(1)],
    // I/O APIC: id 0, global interrupts from 0.
    ...[1, 12, 0, 0, ...dword(IOAPIC_BASE), ...dword(0)],
    // Interrupt source override: ISA line 0 is global interrupt 2, conforming to the bus.
    ...(irq0Override ? [2, 10, 0, 0, ...dword(2), ...word(0)] : []),
    // NMI on LINT1 of all processors.
    ...[4, 6, 0xff, ...word(0), 1],
  ]);

export const acpiTables = (options: AcpiOptions = {}): AcpiTables => {
  const gpa = options.gpa ?? ACPI_TABLES_GPA;
  const parts: { at: number; bytes: Uint8Array }[] = [];
  let next = gpa + 64;
  const place = (bytes: Uint8Array): number => {
    const at = Math.ceil(next / 64) * 64;
    parts.push({ at, bytes });
    next = at + bytes.length;
    return at;
  };

  const facsAt = place(facs());
  const dsdtAt = place(table('DSDT', 2, options.emptyDsdt === true ? [] : S5_AML));
  const fadtAt = place(fadt(facsAt, dsdtAt));
  const madtAt = place(madt(options.irq0Override ?? false));
  const xsdtAt = place(table('XSDT', 1, [...dword(fadtAt), ...dword(0), ...dword(madtAt), ...dword(0)]));

  const rsdp = new Uint8Array(36);
  rsdp.set([...ascii('RSD PTR '), 0, ...ascii(OEM_ID), 2]);
  rsdp.set([...dword(36), ...dword(xsdtAt)], 20);
  checksum(rsdp, 8, 20);
  checksum(rsdp, 32);
  parts.push({ at: gpa, bytes: rsdp });

  const bytes = new Uint8Array(next - gpa);
  for (const part of parts) bytes.set(part.bytes, part.at - gpa);
  return {
    gpa,
    bytes,
    at: { 'RSD PTR ': gpa, XSDT: xsdtAt, FACP: fadtAt, FACS: facsAt, DSDT: dsdtAt, APIC: madtAt },
  };
};
