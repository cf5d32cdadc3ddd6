/** What notebooks import: the lab on one default hypervisor. */

import type { LoadOptions, ModuleName } from './hypervisor/modules.js';
import { Hypervisor } from './hypervisor/modules.js';
import { type BootOptions, boot as bootIn, type RunResult } from './lab/machine.js';

export const hypervisor = new Hypervisor();

/** insmod: `loadModule('kvm-intel', { ept: false })` for shadow paging. Counters start at 0 unless `keepCounters`. */
export const loadModule = (
  name: ModuleName,
  params: Readonly<Record<string, unknown>> = {},
  options: LoadOptions = {},
): void => hypervisor.loadModule(name, params, options);
/** rmmod: refused while a VM runs. */
export const unloadModule = (name: ModuleName): void => hypervisor.unloadModule(name);
/** Boots a guest under the loaded module and runs it to its end. */
export const boot = (options: BootOptions = {}): Promise<RunResult> => bootIn(hypervisor, options);

export { LabError } from './base/error.js';
export {
  type Prediction,
  type PredictionMode,
  type PredictionOptions,
  type PredictionTerm,
  predict,
} from './guests/tiny/predict.js';
export { type TinyOptions, tinyGuest } from './guests/tiny/tiny.js';
export { DEFAULT_WORKLOAD, type TinyWorkload, WORKLOAD, type WorkloadName } from './guests/tiny/workload.js';
export { Hypervisor } from './hypervisor/modules.js';
export type { TraceEvent, TraceName } from './hypervisor/trace-events.js';
export { TRACEPOINTS } from './hypervisor/trace-rows.js';
export { bootBoth, bootUnder } from './lab/both.js';
export { type ChangedControl, changedControls } from './lab/changed-controls.js';
export { costChart, exitChart, phaseChart } from './lab/charts.js';
export { check } from './lab/check.js';
export { compareCounts, compareCsv, compareText } from './lab/compare.js';
export { exitFrame, frameToHTML } from './lab/frame.js';
export { type LoggedQuery, queriesBesideLog, sampleLog } from './lab/leaf-log.js';
export type { BootOptions, Machine, Paging, Phase, RunResult } from './lab/machine.js';
export { leafNumbers } from './lab/machine.js';
export { type ModuleParams, readModuleParams } from './lab/module-params.js';
export type { MachineListeners, ObservedMachine, VmcsFields } from './lab/observe.js';
export { chart, toSVG, vegaLibraryHTML } from './lab/plot.js';
export {
  bootPredicted,
  type PredictedRow,
  type PredictedRun,
  predictionText,
} from './lab/prediction.js';
export { countsOf, readings } from './lab/readings.js';
export { type CostRow, costRows, type PhaseCounts, phaseCounts, sumOf } from './lab/run-tables.js';
export { type CatchOptions, type CaughtExit, catchExit, type ExitCatch } from './lab/trace-catch.js';
export { type ExitExplanation, explainExit } from './lab/trace-explain.js';
export { EXIT_REASONS } from './vmx/exit-reasons.js';
