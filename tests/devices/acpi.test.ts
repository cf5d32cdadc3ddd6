import { describe, expect, it } from 'vitest';
import { ACPI_TABLES_GPA, acpiTables } from '../../lib/devices/acpi.js';

const read = (options = {}) => {
  const tables = acpiTables(options);
  const view = new DataView(tables.bytes.buffer);
  const at = (name: keyof typeof tables.at) => tables.at[name] - tables.gpa;
  const table = (name: keyof typeof tables.at) => {
    const from = at(name);
    return tables.bytes.subarray(from, from + view.getUint32(from + 4, true));
  };
  return { tables, view, at, table };
};
const sum = (bytes: Uint8Array) => bytes.reduce((a, b) => (a + b) & 0xff, 0);
const text = (bytes: Uint8Array, from: number, n: number) =>
  String.fromCharCode(...bytes.subarray(from, from + n));

describe('ACPI tables', () => {
  it('has valid checksums and a chain from the RSDP', () => {
    const { tables, view, at, table } = read();
    expect(tables.gpa).toBe(ACPI_TABLES_GPA);
    expect(text(tables.bytes, 0, 8)).toBe('RSD PTR ');
    expect([sum(tables.bytes.subarray(0, 20)), sum(tables.bytes.subarray(0, 36))]).toEqual([0, 0]);
    for (const name of ['XSDT', 'FACP', 'DSDT', 'APIC'] as const) {
      expect([text(table(name), 0, 4), sum(table(name))]).toEqual([name, 0]);
    }
    expect(view.getUint32(24, true)).toBe(tables.at.XSDT);
    expect(view.getUint32(at('XSDT') + 36, true)).toBe(tables.at.FACP);
    expect(view.getUint32(at('XSDT') + 44, true)).toBe(tables.at.APIC);
    expect(tables.at.FACS % 64).toBe(0);
  });

  it('has the FADT of the reference machine', () => {
    const { view, at, tables } = read();
    const f = at('FACP');
    expect([view.getUint8(f + 8), view.getUint32(f + 4, true), view.getUint16(f + 46, true)]).toEqual([
      3, 244, 9,
    ]);
    expect([view.getUint32(f + 36, true), view.getUint32(f + 40, true)]).toEqual([
      tables.at.FACS,
      tables.at.DSDT,
    ]);
    expect([view.getUint32(f + 56, true), view.getUint32(f + 64, true)]).toEqual([0x600, 0x604]);
    expect([view.getUint8(f + 88), view.getUint8(f + 89)]).toEqual([4, 2]);
    expect([view.getUint16(f + 96, true), view.getUint16(f + 98, true)]).toEqual([0xfff, 0xfff]);
    expect([view.getUint16(f + 109, true), view.getUint32(f + 112, true)]).toEqual([1, 0x31]);
  });

  it('has one local APIC, one I/O APIC, NMI on LINT1, and the override only when asked for', () => {
    const types = (bytes: Uint8Array) => {
      const out: number[] = [];
      for (let i = 44; i < bytes.length; i += bytes[i + 1]) out.push(bytes[i]);
      return out;
    };
    expect(types(read().table('APIC'))).toEqual([0, 1, 4]);
    expect(types(read({ irq0Override: true }).table('APIC'))).toEqual([0, 1, 2, 4]);
  });

  it('offers S5 unless the DSDT is to be empty', () => {
    const aml = read().table('DSDT').subarray(36);
    expect([...aml]).toEqual([0x08, 0x5f, 0x53, 0x35, 0x5f, 0x12, 8, 4, 0x0a, 5, 0x0a, 5, 0, 0]);
    expect(read({ emptyDsdt: true }).table('DSDT').length).toBe(36);
  });
});
