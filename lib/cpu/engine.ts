export const ENGINES = ['interpreter', 'reference'] as const;
export type EngineName = (typeof ENGINES)[number];

/** What the run loop asks of an engine; `reference.ts` and `interpreter.ts` answer. */
export interface Engine {
  readonly name: EngineName;
  /**
   * Executes from `S.rip` until it must return: the budget (`S.budget`) is used up, a fault or VM exit is recorded, or
   * `S.attention` is set at the end of a block-ending instruction. `S.leave` says why, `S.rip` is the instruction to
   * execute next (or the one that faulted or exited), and `S.budget` what is left, exact to the instruction.
   */
  run(): void;
}
