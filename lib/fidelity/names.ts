/** The recorded runs, and the places where they can stop. */
import type { RunId } from '../lab/reference.js';

export const RUN_IDS: readonly RunId[] = ['a', 'b', 'c', 'd', 'aA', 'bA'];

/** How far a run goes. */
export const STOPS = ['init', 'workload', 'micro'] as const;
export type Stop = (typeof STOPS)[number];
