/**
 * The terminal: a progress line, the keyboard as the guest's serial line, and Ctrl-C.
 *
 * While a guest has the keyboard the terminal is raw. Ctrl-] always ends the run; Ctrl-C does too, except in a shell
 * (`--shell`), where it belongs to the guest.
 */
const CTRL_C = 3;
const CTRL_RIGHT_BRACKET = 29;

/** A line on stderr that overwrites itself; silent where stderr is not a terminal. */
export class ProgressLine {
  readonly #on = process.stderr.isTTY === true;
  #shown = false;
  show(text: string): void {
    if (!this.#on) return;
    process.stderr.write(`\r\u001b[K${text.slice(0, Math.max(20, (process.stderr.columns ?? 80) - 1))}`);
    this.#shown = true;
  }
  clear(): void {
    if (!this.#shown) return;
    process.stderr.write('\r\u001b[K');
    this.#shown = false;
  }
}

/**
 * Streams console bytes to stdout and keeps the progress line out of their way: it is only drawn at the start of a
 * line, when the console shares the terminal.
 */
export class ConsoleStream {
  readonly #progress: ProgressLine;
  #atLineStart = true;
  constructor(progress: ProgressLine) {
    this.#progress = progress;
  }
  write(bytes: Uint8Array): void {
    this.#progress.clear();
    process.stdout.write(bytes);
    this.#atLineStart = bytes[bytes.length - 1] === 10;
  }
  /** What follows on the terminal begins on a line of its own. */
  endLine(): void {
    if (!this.#atLineStart && process.stdout.isTTY === true) process.stdout.write('\n');
    this.#atLineStart = true;
  }
  progress(text: string): void {
    if (this.#atLineStart || process.stdout.isTTY !== true) this.#progress.show(text);
  }
}

/** Calls `work` with a signal that SIGINT and SIGTERM abort; a second one ends the process at once. */
export const interruptible = async <T>(work: (controller: AbortController) => Promise<T>): Promise<T> => {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    return await work(controller);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
};

/**
 * Gives the keyboard to the guest while `work` runs.
 * @param keepCtrlC the guest gets Ctrl-C
 */
export const withKeyboard = async <T>(
  controller: AbortController,
  keepCtrlC: boolean,
  work: (input: (receive: (bytes: Uint8Array) => void) => void) => Promise<T>,
): Promise<T> => {
  const { stdin } = process;
  let receive: ((bytes: Uint8Array) => void) | undefined;
  const onData = (bytes: Buffer): void => {
    if (bytes.includes(CTRL_RIGHT_BRACKET) || (!keepCtrlC && bytes.includes(CTRL_C))) {
      controller.abort();
      return;
    }
    receive?.(bytes);
  };
  stdin.setRawMode(true);
  stdin.on('data', onData);
  stdin.resume();
  try {
    return await work((r) => {
      receive = r;
    });
  } finally {
    stdin.off('data', onData);
    stdin.setRawMode(false);
    stdin.pause();
  }
};
