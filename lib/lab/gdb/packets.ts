/**
 * The packet layer of GDB's remote serial protocol (GDB manual, "Overview" of the Remote Serial Protocol): `$data#sum`,
 * acknowledgements, the escape character, and the interrupt byte 0x03. Run-length encoding is not sent.
 *
 * A packet is at most `MAX_PACKET` bytes; more is a broken client.
 */

export const MAX_PACKET = 0x4000;
const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
const INTERRUPT = 0x03;

/** What came in. Binary data is one character a byte. */
export type Incoming =
  | { readonly kind: 'packet'; readonly data: string }
  | { readonly kind: 'bad' }
  | { readonly kind: 'interrupt' }
  | { readonly kind: 'overflow' };

/** Cuts the byte stream into packets. */
export class PacketReader {
  #state: 'idle' | 'data' | 'sum1' | 'sum2' = 'idle';
  #data: number[] = [];
  #sum = 0;
  #digits = '';

  push(bytes: Uint8Array): Incoming[] {
    const out: Incoming[] = [];
    for (const b of bytes) {
      switch (this.#state) {
        case 'idle':
          if (b === INTERRUPT) out.push({ kind: 'interrupt' });
          else if (b === DOLLAR) this.#begin();
          break;
        case 'data':
          if (b === HASH) this.#state = 'sum1';
          else if (b === DOLLAR) this.#begin();
          else if (this.#data.length >= MAX_PACKET) {
            this.#state = 'idle';
            out.push({ kind: 'overflow' });
          } else {
            this.#data.push(b);
            this.#sum = (this.#sum + b) & 0xff;
          }
          break;
        case 'sum1':
          this.#digits = String.fromCharCode(b);
          this.#state = 'sum2';
          break;
        case 'sum2':
          this.#state = 'idle';
          out.push(this.#complete(this.#digits + String.fromCharCode(b)));
          break;
      }
    }
    return out;
  }

  #begin(): void {
    this.#state = 'data';
    this.#data = [];
    this.#sum = 0;
  }

  #complete(sum: string): Incoming {
    if (!/^[0-9a-fA-F]{2}$/.test(sum) || Number.parseInt(sum, 16) !== this.#sum) return { kind: 'bad' };
    let data = '';
    for (let i = 0; i < this.#data.length; i++) {
      const b = this.#data[i];
      data += String.fromCharCode(b === ESCAPE && i + 1 < this.#data.length ? this.#data[++i] ^ 0x20 : b);
    }
    return { kind: 'packet', data };
  }
}

/** A packet as it is sent. @param data one character a byte */
export const packet = (data: string): Buffer => {
  let escaped = '';
  for (const c of data) escaped += '$#}*'.includes(c) ? `}${String.fromCharCode(c.charCodeAt(0) ^ 0x20)}` : c;
  let sum = 0;
  for (let i = 0; i < escaped.length; i++) sum = (sum + escaped.charCodeAt(i)) & 0xff;
  return Buffer.from(`$${escaped}#${sum.toString(16).padStart(2, '0')}`, 'latin1');
};

/** Bytes as hexadecimal digits. */
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Hexadecimal digits as bytes, or undefined when they are not. */
export const fromHex = (text: string): Uint8Array | undefined =>
  text.length % 2 === 0 && /^[0-9a-fA-F]*$/.test(text)
    ? Uint8Array.from(Buffer.from(text, 'hex'))
    : undefined;
/** Text as hexadecimal digits, for `monitor` output. */
export const hexText = (text: string): string => Buffer.from(text, 'utf8').toString('hex');
