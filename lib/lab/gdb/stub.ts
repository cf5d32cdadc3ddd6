/**
 * A GDB remote stub for a machine: a server on the loopback interface, one client at a time.
 *
 * The machine starts stopped and waits for a client; a client that comes later stops it. The machine's own loop asks the
 * stub before each slice (`ready`, `limit`) and tells it afterwards (`ran`, `ended`), so nothing here runs the guest.
 * A client that goes away without a word has detached: its breakpoints go, and the machine goes on.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { LabError } from '../../base/error.js';
import type { Outcome } from '../../hypervisor/next.js';
import type { Machine } from '../machine.js';
import { Breakpoints } from './breakpoints.js';
import { answer, type CommandContext, setRip } from './commands.js';
import { PacketReader, packet } from './packets.js';

const LOOPBACK = '127.0.0.1';
/** Slices while a client is there: short enough for it to interrupt. */
const SLICE = { free: 2_000_000, watched: 50_000 } as const;
const SIGNAL = { interrupt: '02', trap: '05', segv: '0b' } as const;
/** Outcomes whose state is worth a look before the machine is gone. */
const INSPECTED: ReadonlySet<string> = new Set(['triple-fault', 'emulation-failure', 'entry-failure']);

type State = 'waiting' | 'stopped' | 'stepping' | 'running' | 'killed';

export class GdbStub {
  readonly #machine: Machine;
  readonly #server: Server;
  readonly #breakpoints: Breakpoints;
  #state: State = 'waiting';
  #socket: Socket | undefined;
  #reader = new PacketReader();
  #noAck = false;
  #swbreak = false;
  /** The client has let the machine go and waits for a stop reply. */
  #owed = false;
  /** The client wants the machine to stop after this slice. */
  #interrupted = false;
  #stopReply = `T${SIGNAL.trap}thread:01;`;
  /** Packets that came while the machine ran. */
  #queue: string[] = [];
  #wake: (() => void) | undefined;
  /** The machine has ended: it cannot go on. */
  #over = false;
  #closed = false;

  private constructor(machine: Machine, server: Server) {
    this.#machine = machine;
    this.#server = server;
    this.#breakpoints = new Breakpoints(machine);
    server.on('connection', (socket) => this.#connected(socket));
  }

  /** @param port 0 for any free one. @throws LabError `gdb.port` */
  static async listen(machine: Machine, port: number): Promise<GdbStub> {
    if (!Number.isInteger(port) || port < 0 || port > 65535)
      throw new LabError(
        'gdb.port',
        `${port} is no TCP port`,
        'give a number from 0 to 65535; 0 takes a free one',
      );
    const server = createServer({ noDelay: true });
    const stub = new GdbStub(machine, server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', (e: NodeJS.ErrnoException) =>
        reject(new LabError('gdb.port', `cannot listen on ${LOOPBACK}:${port}: ${e.code ?? e.message}`)),
      );
      server.listen(port, LOOPBACK, 1, resolve);
    });
    return stub;
  }
  /** The TCP port that it listens on. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  // ---- the machine's loop
  /** Resolves when the machine may run: `kill` when it must not. */
  async ready(signal?: AbortSignal): Promise<'run' | 'kill'> {
    while (this.#state === 'waiting' || this.#state === 'stopped') {
      if (signal?.aborted === true) return 'kill';
      await this.#changed(signal);
    }
    if (this.#state === 'killed') return 'kill';
    this.#breakpoints.hit = false;
    return 'run';
  }
  /** Instructions, in total, at which the next slice ends. */
  limit(retired: number, otherwise: number): number {
    if (this.#state === 'stepping') return Math.min(otherwise, retired + 1);
    if (this.#socket === undefined) return otherwise;
    return Math.min(otherwise, retired + (this.#breakpoints.size > 0 ? SLICE.watched : SLICE.free));
  }
  /** A slice has ended, and the machine can go on. @param whole up to its limit, or to a breakpoint */
  ran(whole: boolean): void {
    const stepped = this.#state === 'stepping' && whole;
    if (stepped) this.#breakpoints.look();
    const { hit, watched } = this.#breakpoints;
    if (watched !== undefined) this.#stopped(SIGNAL.trap, `watch:${watched.toString(16)};`);
    else if (hit) this.#stopped(SIGNAL.trap, this.#swbreak ? 'swbreak:;' : '');
    else if (stepped) this.#stopped(SIGNAL.trap);
    else if (this.#interrupted) this.#stopped(SIGNAL.interrupt);
  }
  /** The machine has ended. After a fatal end the client may look around first. */
  async ended(outcome: Outcome, signal?: AbortSignal): Promise<void> {
    this.#over = true;
    if (this.#socket !== undefined && INSPECTED.has(outcome.kind)) {
      this.#stopped(SIGNAL.segv);
      await this.ready(signal);
    }
    if (this.#owed) this.#send(`W${((outcome.status ?? 0) & 0xff).toString(16).padStart(2, '0')}`);
  }
  /** Closes the connection and the server. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#breakpoints.clear();
    const socket = this.#socket;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    if (socket !== undefined) {
      socket.end();
      // what has been sent arrives; a client that keeps its side open does not keep us
      setTimeout(() => socket.destroy(), 200).unref();
    }
    await closed;
  }

  // ---- the client
  #connected(socket: Socket): void {
    if (this.#socket !== undefined || this.#closed) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    this.#reader = new PacketReader();
    this.#noAck = false;
    this.#swbreak = false;
    this.#queue = [];
    this.#owed = false;
    if (this.#state === 'waiting') this.#enter('stopped');
    else this.#interrupted = true;
    socket.on('data', (bytes: Buffer) => this.#received(bytes));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#detach();
    });
  }
  #detach(): void {
    this.#breakpoints.clear();
    this.#interrupted = false;
    this.#owed = false;
    if (this.#state !== 'killed') this.#enter('running');
  }

  #received(bytes: Uint8Array): void {
    for (const item of this.#reader.push(bytes)) {
      switch (item.kind) {
        case 'interrupt':
          if (this.#state === 'running') this.#interrupted = true;
          break;
        case 'bad':
          if (!this.#noAck) this.#socket?.write('-');
          break;
        case 'overflow':
          this.#socket?.destroy();
          return;
        case 'packet':
          if (!this.#noAck) this.#socket?.write('+');
          this.#queue.push(item.data);
          // a packet to a running machine stops it, as an interrupt does
          if (this.#state === 'running') this.#interrupted = true;
          this.#work();
          break;
      }
    }
  }
  /** Answers packets while the machine stands still. */
  #work(): void {
    while (this.#state === 'stopped') {
      const data = this.#queue.shift();
      if (data === undefined) return;
      const reply = answer(this.#context, data);
      if (reply !== undefined) this.#send(reply);
    }
  }
  readonly #context: CommandContext = ((stub: GdbStub): CommandContext => ({
    get machine() {
      return stub.#machine;
    },
    get breakpoints() {
      return stub.#breakpoints;
    },
    stopReply: () => stub.#stopReply,
    send: (data) => stub.#send(data),
    startNoAck: () => {
      stub.#noAck = true;
    },
    supports: (features) => {
      stub.#swbreak = features.includes('swbreak+');
    },
    resume: (how, rip) => {
      if (rip !== undefined) setRip(stub.#machine, rip);
      stub.#breakpoints.resume();
      stub.#owed = true;
      stub.#enter(how === 'step' && !stub.#over ? 'stepping' : 'running');
    },
    detach: () => stub.#detach(),
    kill: () => stub.#enter('killed'),
  }))(this);

  #stopped(signal: string, reason = ''): void {
    this.#interrupted = false;
    this.#breakpoints.hit = false;
    if (this.#socket === undefined) return;
    this.#stopReply = `T${signal}${reason}thread:01;`;
    this.#enter('stopped');
    // a client that has just connected asks for the reason itself
    if (this.#owed) this.#send(this.#stopReply);
    this.#owed = false;
    this.#work();
  }
  #send(data: string): void {
    if (this.#socket?.writable === true) this.#socket.write(packet(data));
  }
  #enter(state: State): void {
    this.#state = state;
    this.#wake?.();
  }
  #changed(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#wake = undefined;
        signal?.removeEventListener('abort', done);
        resolve();
      };
      this.#wake = done;
      signal?.addEventListener('abort', done, { once: true });
    });
  }
}
