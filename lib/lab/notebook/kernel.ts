/**
 * A small Jupyter client: starts the kernel of a kernel spec and runs cells in it (Jupyter "Messaging in Jupyter", "The
 * Wire Protocol"). It is here because nbconvert does not say why a TypeScript cell failed, and tests want each cell's
 * outcome. Only what running a notebook needs; no stdin, no comms.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Dealer, Subscriber } from 'zeromq';
import { LabError } from '../../base/error.js';
import { JUPYTER } from '../paths.js';

/** One output as a notebook file stores it. */
export type CellOutput =
  | { readonly output_type: 'stream'; readonly name: 'stdout' | 'stderr'; readonly text: string }
  | {
      readonly output_type: 'display_data';
      readonly data: Readonly<Record<string, unknown>>;
      readonly metadata: Readonly<Record<string, unknown>>;
    };

export interface CellResult {
  readonly ok: boolean;
  readonly count: number;
  readonly outputs: readonly CellOutput[];
  readonly milliseconds: number;
}

interface Message {
  readonly parent: string;
  readonly type: string;
  readonly content: Readonly<Record<string, unknown>>;
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });

export class Kernel {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #key: string;
  readonly #shell = new Dealer();
  readonly #iopub = new Subscriber();
  readonly #session = randomUUID();
  readonly #replies = new Map<string, (m: Message) => void>();
  readonly #published = new Map<string, (m: Message) => void>();
  #exited: string | undefined;

  private constructor(child: ChildProcess, folder: string, key: string) {
    this.#child = child;
    this.#folder = folder;
    this.#key = key;
    child.once('exit', (code, signal) => {
      this.#exited = signal ?? `status ${code}`;
    });
  }

  /** Starts the project's tslab kernel and waits until it answers. */
  static async start(): Promise<Kernel> {
    const folder = mkdtempSync(join(tmpdir(), 'vmxlab-kernel-'));
    const key = randomUUID();
    const spec = join(JUPYTER, 'kernels', 'tslab');
    const ports = await Promise.all([freePort(), freePort(), freePort(), freePort(), freePort()]);
    const [shell_port, iopub_port, stdin_port, control_port, hb_port] = ports;
    const connection = join(folder, 'connection.json');
    writeFileSync(
      connection,
      JSON.stringify({
        ip: '127.0.0.1',
        transport: 'tcp',
        signature_scheme: 'hmac-sha256',
        key,
        shell_port,
        iopub_port,
        stdin_port,
        control_port,
        hb_port,
      }),
    );
    const { argv } = JSON.parse(readFileSync(join(spec, 'kernel.json'), 'utf8')) as { argv: string[] };
    const [command, ...args] = argv.map((a) =>
      a.replace('{resource_dir}', spec).replace('{connection_file}', connection),
    );
    const child = spawn(command === 'node' ? process.execPath : command!, args, {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const kernel = new Kernel(child, folder, key);
    await kernel.#connect(shell_port!, iopub_port!);
    return kernel;
  }

  async #connect(shell: number, iopub: number): Promise<void> {
    this.#shell.connect(`tcp://127.0.0.1:${shell}`);
    this.#iopub.connect(`tcp://127.0.0.1:${iopub}`);
    this.#iopub.subscribe();
    this.#listen(this.#shell, this.#replies);
    this.#listen(this.#iopub, this.#published);
    // publish and subscribe: ask until the answer's idle is heard
    for (let attempt = 0; attempt < 60; attempt++) {
      if (this.#exited !== undefined)
        throw new LabError('notebook.kernel', `the tslab kernel ended at its start (${this.#exited})`);
      const heard = await this.#ask('kernel_info_request', {}, () => {}, 1000);
      if (heard) return;
    }
    throw new LabError('notebook.kernel', 'the tslab kernel did not answer within a minute');
  }

  #listen(socket: Dealer | Subscriber, waiting: Map<string, (m: Message) => void>): void {
    const loop = async (): Promise<void> => {
      for await (const frames of socket) {
        const at = frames.findIndex((f) => f.toString() === '<IDS|MSG>');
        const [header, parent, , content] = frames
          .slice(at + 2)
          .map((f) => JSON.parse(f.toString()) as Record<string, unknown>);
        const id = String(parent?.['msg_id'] ?? '');
        waiting.get(id)?.({ parent: id, type: String(header?.['msg_type']), content: content ?? {} });
      }
    };
    loop().catch(() => {
      // the socket was closed
    });
  }

  /** Sends a request; true when both its reply and its idle status came in time. */
  async #ask(
    type: string,
    content: object,
    onPublished: (m: Message) => void,
    timeout: number | undefined,
    onReply: (m: Message) => void = () => {},
  ): Promise<boolean> {
    const id = randomUUID();
    const header = JSON.stringify({
      msg_id: id,
      username: 'vmxlab',
      session: this.#session,
      msg_type: type,
      version: '5.3',
      date: new Date(0).toISOString(),
    });
    const parts = [header, '{}', '{}', JSON.stringify(content)];
    const hmac = createHmac('sha256', this.#key);
    for (const p of parts) hmac.update(p);
    return await new Promise<boolean>((resolve, reject) => {
      let replied = false;
      let idle = false;
      const finish = (ok: boolean): void => {
        clearTimeout(timer);
        clearInterval(watch);
        this.#replies.delete(id);
        this.#published.delete(id);
        resolve(ok);
      };
      const timer = timeout === undefined ? undefined : setTimeout(() => finish(false), timeout);
      const watch = setInterval(() => {
        if (this.#exited === undefined) return;
        clearInterval(watch);
        reject(new LabError('notebook.kernel', `the kernel ended while it ran a cell (${this.#exited})`));
      }, 200);
      this.#replies.set(id, (m) => {
        onReply(m);
        replied = true;
        if (idle) finish(true);
      });
      this.#published.set(id, (m) => {
        onPublished(m);
        if (m.type === 'status' && m.content['execution_state'] === 'idle') idle = true;
        if (idle && replied) finish(true);
      });
      this.#shell.send(['<IDS|MSG>', hmac.digest('hex'), ...parts]).catch(reject);
    });
  }

  /** Runs one cell to its end. */
  async run(source: string): Promise<CellResult> {
    const started = performance.now();
    const outputs: CellOutput[] = [];
    let ok = false;
    let count = 0;
    const published = (m: Message): void => {
      if (m.type === 'stream') {
        const name = m.content['name'] === 'stderr' ? 'stderr' : 'stdout';
        const text = String(m.content['text']);
        const last = outputs[outputs.length - 1];
        if (last?.output_type === 'stream' && last.name === name)
          outputs[outputs.length - 1] = { ...last, text: last.text + text };
        else outputs.push({ output_type: 'stream', name, text });
      } else if (m.type === 'display_data' || m.type === 'execute_result') {
        outputs.push({
          output_type: 'display_data',
          data: m.content['data'] as Record<string, unknown>,
          metadata: (m.content['metadata'] ?? {}) as Record<string, unknown>,
        });
      }
    };
    await this.#ask(
      'execute_request',
      {
        code: source,
        silent: false,
        store_history: true,
        user_expressions: {},
        allow_stdin: false,
        stop_on_error: true,
      },
      published,
      undefined,
      (m) => {
        ok = m.content['status'] === 'ok';
        count = Number(m.content['execution_count'] ?? 0);
      },
    );
    // after an error tslab drops what arrives in the next 200 ms
    if (!ok) await new Promise((r) => setTimeout(r, 250));
    return { ok, count, outputs, milliseconds: performance.now() - started };
  }

  async stop(): Promise<void> {
    this.#shell.close();
    this.#iopub.close();
    if (this.#exited === undefined) {
      const ended = new Promise((r) => this.#child.once('exit', r));
      this.#child.kill('SIGTERM');
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
