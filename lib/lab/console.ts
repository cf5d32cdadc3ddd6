/** The guest's serial console: its text, who hears of each line, and who gets the bytes. */

export class Console {
  text = '';
  #line = '';
  #pending: number[] = [];
  readonly #onLine: (line: string) => void;
  readonly #sink: ((bytes: Uint8Array) => void) | undefined;
  constructor(onLine: (line: string) => void, sink: ((bytes: Uint8Array) => void) | undefined) {
    this.#onLine = onLine;
    this.#sink = sink;
  }
  byte(b: number): void {
    const c = String.fromCharCode(b);
    this.text += c;
    if (this.#sink !== undefined) this.#pending.push(b);
    if (b !== 10) {
      this.#line += c;
      return;
    }
    const line = this.#line;
    this.#line = '';
    this.#onLine(line);
  }
  flush(): void {
    if (this.#pending.length === 0) return;
    this.#sink?.(Uint8Array.from(this.#pending));
    this.#pending = [];
  }
}
