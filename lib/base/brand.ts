/** Branded addresses, in the words of KVM's mmu documentation. They cost nothing at run time. */
declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]?: B };

/** Guest virtual (linear) address: unsigned 64-bit. */
export type Gva = Brand<bigint, 'gva'>;
/** Guest physical address, a byte address below 2^52. */
export type Gpa = Brand<number, 'gpa'>;
/** Host physical address, a byte address below 2^52. */
export type Hpa = Brand<number, 'hpa'>;
/** Guest frame number: gpa / 4096. */
export type Gfn = Brand<number, 'gfn'>;
/** Host frame number: hpa / 4096. */
export type Pfn = Brand<number, 'pfn'>;
