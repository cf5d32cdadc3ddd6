/**
 * The packets of GDB's remote serial protocol that a stopped machine answers (GDB manual, "Packets", "General Query
 * Packets"). Each is a row: how it begins, and what it does.
 *
 * One thread, number 1. Not offered: read watchpoints, extended mode, files, signals to the guest.
 */
import type { Machine } from '../machine.js';
import type { Breakpoints } from './breakpoints.js';
import { monitor } from './monitor.js';
import { fromHex, hexText, MAX_PACKET, toHex } from './packets.js';
import { readAll, readOne, TARGET_XML, writeAll, writeOne } from './registers.js';
import { readGuest, writeGuest } from './walk.js';

/** What a packet may do beside reading and writing the machine. */
export interface CommandContext {
  readonly machine: Machine;
  readonly breakpoints: Breakpoints;
  /** The last stop reply. */
  readonly stopReply: () => string;
  /** Sends a packet before the reply. */
  readonly send: (data: string) => void;
  readonly startNoAck: () => void;
  /** Notes what the client can do, from qSupported. */
  readonly supports: (features: readonly string[]) => void;
  readonly resume: (how: 'step' | 'continue', rip: bigint | undefined) => void;
  readonly detach: () => void;
  readonly kill: () => void;
}

/** The reply, or undefined when none is sent now. */
type Command = (context: CommandContext, rest: string) => string | undefined;

const OK = 'OK';
const E = { arguments: 'E01', memory: 'E0e', full: 'E0c', register: 'E16' } as const;
const RIP_NUMBER = 16;
/** Bytes of memory in one reply. */
const MAX_MEMORY = (MAX_PACKET - 64) / 2;

const hexNumber = (text: string | undefined): bigint | undefined =>
  text !== undefined && /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined;

/** `ADDR,LENGTH`. */
const range = (text: string): { linear: bigint; size: number } | undefined => {
  const [a, l, more] = text.split(',');
  const linear = hexNumber(a);
  const size = hexNumber(l);
  if (linear === undefined || size === undefined || more !== undefined || size > 0x1_0000n) return undefined;
  return { linear, size: Number(size) };
};

const readMemory: Command = ({ machine }, rest) => {
  const r = range(rest);
  if (r === undefined) return E.arguments;
  const size = Math.min(r.size, MAX_MEMORY);
  const bytes = readGuest(machine.vm, r.linear, size);
  if (bytes !== undefined) return toHex(bytes);
  // as much as there is: up to the end of the first page
  const part = Math.min(size, 4096 - Number(r.linear & 0xfffn));
  const some = part < size ? readGuest(machine.vm, r.linear, part) : undefined;
  return some === undefined ? E.memory : toHex(some);
};

const store = (machine: Machine, where: string, bytes: Uint8Array | undefined): string => {
  const r = range(where);
  if (r === undefined || bytes === undefined || bytes.length !== r.size) return E.arguments;
  return writeGuest(machine.vm, r.linear, bytes) ? OK : E.memory;
};
const split = (text: string, at: string): readonly [string, string] => {
  const i = text.indexOf(at);
  return i < 0 ? [text, ''] : [text.slice(0, i), text.slice(i + 1)];
};
const writeMemory: Command = ({ machine }, rest) => {
  const [where, data] = split(rest, ':');
  return store(machine, where, fromHex(data));
};
const writeBinary: Command = ({ machine }, rest) => {
  const [where, data] = split(rest, ':');
  return store(machine, where, Uint8Array.from(Buffer.from(data, 'latin1')));
};

const writeRegister: Command = ({ machine }, rest) => {
  const [number, digits] = split(rest, '=');
  const n = hexNumber(number);
  return n !== undefined && writeOne(machine, Number(n), digits) ? OK : E.register;
};
const readRegister: Command = ({ machine }, rest) => {
  const n = hexNumber(rest);
  return (n === undefined ? undefined : readOne(machine, Number(n))) ?? E.register;
};

const resume =
  (how: 'step' | 'continue', signal: boolean): Command =>
  (context, rest) => {
    const text = signal ? split(rest, ';')[1] : rest;
    const rip = text === '' ? undefined : hexNumber(text);
    if (text !== '' && rip === undefined) return E.arguments;
    context.resume(how, rip);
    return undefined;
  };
/** The first action is that of the only thread. */
const vCont: Command = (context, rest) => {
  const action = rest.slice(1, 2).toLowerCase();
  if (action !== 'c' && action !== 's') return E.arguments;
  context.resume(action === 's' ? 'step' : 'continue', undefined);
  return undefined;
};

const breakpoint =
  (change: (b: Breakpoints, linear: bigint) => boolean): Command =>
  ({ breakpoints }, rest) => {
    const linear = hexNumber(rest.split(',')[0]);
    if (linear === undefined) return E.arguments;
    return change(breakpoints, linear) ? OK : E.full;
  };
const insert = breakpoint((b, linear) => b.add(linear));
const remove = breakpoint((b, linear) => {
  b.remove(linear);
  return true;
});

const watchpoint =
  (change: (b: Breakpoints, linear: bigint, size: number) => boolean): Command =>
  ({ breakpoints }, rest) => {
    const r = range(split(rest, ';')[0]);
    if (r === undefined) return E.arguments;
    return change(breakpoints, r.linear, r.size) ? OK : E.full;
  };
const watch = watchpoint((b, linear, size) => b.watch(linear, size));
const unwatch = watchpoint((b, linear, size) => {
  b.unwatch(linear, size);
  return true;
});

const targetXml: Command = (_context, rest) => {
  const r = range(rest);
  if (r === undefined) return E.arguments;
  const from = Number(r.linear);
  const size = Math.min(r.size, MAX_MEMORY);
  return (from + size < TARGET_XML.length ? 'm' : 'l') + TARGET_XML.slice(from, from + size);
};

const monitorCommand: Command = ({ machine, send }, rest) => {
  const bytes = fromHex(rest);
  if (bytes === undefined) return E.arguments;
  const text = monitor(machine, Buffer.from(bytes).toString('utf8'));
  for (let at = 0; at < text.length; at += 2000) send(`O${hexText(text.slice(at, at + 2000))}`);
  return OK;
};

const supported: Command = (context, rest) => {
  context.supports(rest.split(';'));
  return `PacketSize=${MAX_PACKET.toString(16)};qXfer:features:read+;swbreak+;hwbreak+;QStartNoAckMode+;vContSupported+`;
};
const noAck: Command = (context) => {
  context.startNoAck();
  return OK;
};
const says =
  (reply: string): Command =>
  () =>
    reply;

const ends =
  (end: (context: CommandContext) => void, reply: string | undefined): Command =>
  (context) => {
    end(context);
    return reply;
  };

/** Longest first where one begins like another. */
const COMMANDS: readonly (readonly [prefix: string, run: Command])[] = [
  ['qSupported:', supported],
  ['qSupported', supported],
  ['QStartNoAckMode', noAck],
  ['qXfer:features:read:target.xml:', targetXml],
  ['qAttached', says('1')],
  ['qfThreadInfo', says('m1')],
  ['qsThreadInfo', says('l')],
  ['qRcmd,', monitorCommand],
  ['qC', says('QC1')],
  ['vCont?', says('vCont;c;C;s;S')],
  ['vCont', vCont],
  ['vKill', ends((c) => c.kill(), OK)],
  ['?', (c) => c.stopReply()],
  ['g', ({ machine }) => readAll(machine)],
  ['G', ({ machine }, rest) => (writeAll(machine, rest) ? OK : E.register)],
  ['p', readRegister],
  ['P', writeRegister],
  ['m', readMemory],
  ['M', writeMemory],
  ['X', writeBinary],
  ['Z0,', insert],
  ['Z1,', insert],
  ['Z2,', watch],
  ['z0,', remove],
  ['z1,', remove],
  ['z2,', unwatch],
  ['H', says(OK)],
  ['T', says(OK)],
  ['s', resume('step', false)],
  ['c', resume('continue', false)],
  ['S', resume('step', true)],
  ['C', resume('continue', true)],
  ['D', ends((c) => c.detach(), OK)],
  ['k', ends((c) => c.kill(), undefined)],
];

/** Answers a packet; an unknown one gets the empty reply, by which the protocol says "not supported". */
export const answer = (context: CommandContext, data: string): string | undefined => {
  const row = COMMANDS.find(([prefix]) => data.startsWith(prefix));
  return row === undefined ? '' : row[1](context, data.slice(row[0].length));
};

/** Puts RIP where `c ADDR` and `s ADDR` say. */
export const setRip = (machine: Machine, rip: bigint): void => {
  let digits = '';
  for (let i = 0; i < 8; i++)
    digits += Number((rip >> BigInt(8 * i)) & 0xffn)
      .toString(16)
      .padStart(2, '0');
  writeOne(machine, RIP_NUMBER, digits);
};
