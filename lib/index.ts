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
export {
  type Bill,
  billDifference,
  billOf,
  type CurvePoint,
  crossingOf,
  phaseBills,
  priceList,
  walkReferences,
} from './lab/bill.js';
export { type BootJob, bootAll, bootBoth } from './lab/boot-all.js';
export { bootUnder } from './lab/both.js';
export { type ChangedControl, changedControls } from './lab/changed-controls.js';
export { costChart, exitChart, phaseChart } from './lab/charts.js';
export { check } from './lab/check.js';
export { compareCounts, compareCsv, compareText } from './lab/compare.js';
export { billChart, curveChart, winnerChart } from './lab/cost-charts.js';
export { exitFrame, frameToHTML } from './lab/frame.js';
export { type LoggedQuery, queriesBesideLog, sampleLog } from './lab/leaf-log.js';
export type { BootOptions, Machine, Paging, Phase, RunResult } from './lab/machine.js';
export { leafNumbers } from './lab/machine.js';
export { type ModuleParams, readModuleParams } from './lab/module-params.js';
export type { MachineListeners, ObservedMachine, VmcsFields } from './lab/observe.js';
export { areaChart, dotChart, stackChart } from './lab/part-charts.js';
export { type AlbumPage, type TablePair, tableAlbum } from './lab/pictures/album.js';
export { drawTables, leavesOf, rightsText, tablesIn } from './lab/pictures/draw-tables.js';
export { drawFrames } from './lab/pictures/frame-map.js';
export {
  eptTables,
  type FrameUse,
  frameUses,
  guestTables,
  type PageEntry,
  type PageTable,
  type ShadowPageInfo,
  shadowPages,
  shadowTables,
} from './lab/pictures/tables.js';
export { chart, toSVG, vegaLibraryHTML } from './lab/plot.js';
export {
  bootPredicted,
  type PredictedRow,
  type PredictedRun,
  predictionText,
} from './lab/prediction.js';
export { type HardwareRun, hardwareRuns, type Published, publishedCosts } from './lab/published.js';
export { countsOf, readings } from './lab/readings.js';
export {
  type CostRow,
  costRows,
  type PhaseCounts,
  phaseCounts,
  rankCorrelation,
  sumOf,
} from './lab/run-tables.js';
export { type SweepRow, sweep, type Workload } from './lab/sweep.js';
export { type CatchOptions, type CaughtExit, catchExit, type ExitCatch } from './lab/trace-catch.js';
export { type ExitExplanation, explainExit } from './lab/trace-explain.js';
export { EXIT_REASONS } from './vmx/exit-reasons.js';
