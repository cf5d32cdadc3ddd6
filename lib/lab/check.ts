/** Claims about a run: a notebook states what was learned only next to the cell that checks it. */
import { LabError } from '../base/error.js';

/** Prints the claim with a green tick. @throws LabError when it does not hold */
export const check = (claim: string, condition: boolean): void => {
  if (!condition) throw new LabError('lab.check', `this does not hold in this run: ${claim}`);
  console.log(`\u001b[32m✓\u001b[0m ${claim}`);
};
