/**
 * What `npm run fidelity` shows: our counts beside real KVM's, as text and as one self-contained HTML page.
 *
 * A difference that a band does not allow, or that deserves a word anyway, is explained here by its mechanism.
 */
import { PLACES, type Place } from './bands.js';
import type { Line } from './table.js';

export interface Section {
  readonly id: string;
  readonly description: string;
  readonly place: Place;
  readonly lines: readonly Line[];
}

/** One round of a micro test, both sides, without what the timer does. */
export interface MicroLine {
  readonly id: string;
  readonly test: number;
  readonly name: string;
  readonly round: number;
  readonly ours: string;
  readonly theirs: string;
  readonly same: boolean;
}

export interface Report {
  /** About kernel, initramfs, compiler: what differs from the recorded guest. */
  readonly notes: readonly string[];
  /** False when the kernel is another build: ratios are shown, nothing is judged. */
  readonly judged: boolean;
  readonly sections: readonly Section[];
  readonly micro: readonly MicroLine[];
}

/** Why counts differ although the hypervisor decides alike, by name of the line. */
export const EXPLANATIONS: Readonly<Record<string, string>> = {
  '1 EXTERNAL_INTERRUPT':
    'The host tick (250 Hz) and the 8254, a host timer too, exit only when they come while the guest runs; in the time of exit handling the host takes them without an exit. So this counts the cycles that the guest itself runs: 259 ticks of 1.6 M up to init with ACPI here, 207 in the recording.',
  '7 INTERRUPT_WINDOW':
    'Opened when a timer interrupt arrives with interrupts off: follows where timer interrupts fall among exits, hence the time model.',
  '30 IO_INSTRUCTION':
    'Two exits a console character: the recorded boot log has 375 characters more (250 with ACPI), among them the two lines about AVX state. The rest is 8259 and 8254 programming, six exits a timer interrupt, which follows the time model.',
  '31 MSR_READ':
    'The recorded guest sees VMX and reads its capability MSRs 0x481, 0x482, 0x48b, 0x48c, 0x491 and 0x492 (the last gets #GP).',
  '32 MSR_WRITE':
    'The number of TSC-deadline writes is that of timer interrupts; EOI writes are those whose paravirtual offer an exit withdrew.',
  '40 PAUSE_INSTRUCTION':
    'Three exits in TSC delay loops until the window has outgrown them, and again three each time the vCPU thread is scheduled in, which resets the window. Here only the 8254 worker thread takes the processor from it.',
  '48 EPT_VIOLATION':
    'RAM is equal; with ACPI the recorded guest reads the xAPIC page 8 times before x2APIC is on, ours 4 times.',
  '52 PREEMPTION_TIMER':
    'Timer interrupts of the local APIC, and exits forced right after a page fault was injected while an interrupt was pending.',
  preemption_other:
    'Threads other than the 8254 worker also preempt the vCPU thread of the recording; which exit they fall into follows the time model.',
  preemption_reported: 'As preemption_other, at external interrupts.',
  req_event: 'KVM sets the request in more places than have an effect (each kick by the 8259, for instance).',
  fpu_reload: 'Returns to user space, one for each port access that the kernel does not handle.',
  host_state_reload: 'As fpu_reload, plus preemptions of the vCPU thread.',
};

const number = (n: number): string => n.toLocaleString('en-US');
const ratioText = (l: Line): string => (l.ratio === undefined ? '' : l.ratio.toFixed(3));
const verdict = (l: Line, judged: boolean): string =>
  !judged || l.ok === undefined ? '' : l.ok ? 'ok' : 'missed';

/** Bands met and missed over all sections. */
export const tally = (report: Report): { readonly met: number; readonly missed: number } => {
  const all = report.sections.flatMap((s) => s.lines).filter((l) => l.ok !== undefined);
  return { met: all.filter((l) => l.ok).length, missed: all.filter((l) => !l.ok).length };
};

const TITLE: Readonly<Record<Place, string>> = { init: 'at the init line', workload: 'after the workload' };
const title = (s: Section): string => `${s.id} (${s.description}), ${TITLE[s.place]}`;

/** The table of one section as text. */
export const sectionText = (s: Section, judged: boolean): string => {
  const rows = s.lines.map((l) => [
    l.name,
    number(l.ours),
    number(l.theirs),
    ratioText(l),
    l.band,
    verdict(l, judged),
    l.note,
  ]);
  const head = ['', 'ours', 'KVM', 'ratio', 'band', '', ''];
  const width = head.map((h, i) => Math.max(h.length, ...rows.map((r) => (r[i] as string).length)));
  const text = (cells: readonly string[]): string =>
    cells
      .map((c, i) => (i >= 1 && i <= 3 ? c.padStart(width[i] as number) : c.padEnd(width[i] as number)))
      .join('  ')
      .trimEnd();
  return [title(s), text(head), ...rows.map(text)].join('\n');
};

export const summaryText = (report: Report): string => {
  if (!report.judged) return 'The kernel is another build than the recorded one: nothing is judged.';
  const { met, missed } = tally(report);
  const lines = report.sections.flatMap((s) =>
    s.lines
      .filter((l) => l.ok === false)
      .map((l) => `missed: ${s.id} ${s.place} ${l.name}: ${l.ours} against ${l.theirs} (${l.band})`),
  );
  return [`${met} bands met, ${missed} missed`, ...lines].join('\n');
};

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

const STYLE = `body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:.6em 0 2em}th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}tr.missed td{background:#fde8e8}.ok{color:#176b2c}.missed .v{color:#a11;font-weight:600}
.why{color:#555;max-width:34em}h2{margin-top:2em}`;

const cell = (text: string, kind = ''): string =>
  `<td${kind === '' ? '' : ` class="${kind}"`}>${escaped(text)}</td>`;

const sectionHtml = (s: Section, judged: boolean): string => {
  const rows = s.lines.map((l) => {
    const says = verdict(l, judged);
    const off = l.ours !== l.theirs;
    const why = [l.note, off ? (EXPLANATIONS[l.name] ?? '') : ''].filter((t) => t !== '').join('. ');
    return `<tr${says === 'missed' ? ' class="missed"' : ''}>${cell(l.name)}${cell(number(l.ours), 'n')}${cell(number(l.theirs), 'n')}${cell(ratioText(l), 'n')}${cell(l.band)}${cell(says, says === 'ok' ? 'ok' : 'v')}${cell(why, 'why')}</tr>`;
  });
  return `<h2>${escaped(title(s))}</h2>
<table><thead><tr><th>reason or statistic</th><th>ours</th><th>real KVM</th><th>ratio</th><th>band</th><th></th><th></th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`;
};

const microHtml = (lines: readonly MicroLine[]): string => {
  if (lines.length === 0) return '';
  const rows = lines.map(
    (l) =>
      `<tr>${cell(l.id)}${cell(`${l.test} ${l.name}`)}${cell(String(l.round), 'n')}${cell(l.ours)}${cell(l.theirs)}${cell(l.same ? 'equal' : '')}</tr>`,
  );
  return `<h2>Micro tests</h2>
<p>Exits in each bracket, by reason; 1, 7, 30, 32, 40 and 52, which a timer interrupt makes, are left out.</p>
<table><thead><tr><th>run</th><th>test</th><th>round</th><th>ours</th><th>real KVM</th><th></th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`;
};

export const reportHtml = (report: Report): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Exit counts beside real KVM</title><style>${STYLE}</style></head>
<body><h1>Exit counts beside real KVM</h1>
<p>The same Debian kernel, command lines, CPUID and /init as in <code>data/reference/real-kvm-exits.json</code>: ours beside an unmodified kvm-intel of Linux 6.1, cumulative from the creation of the machine.</p>
<p>${report.notes.map(escaped).join('<br>')}</p>
<p><b>${escaped(summaryText(report)).replaceAll('\n', '<br>')}</b></p>
${PLACES.flatMap((place) => report.sections.filter((s) => s.place === place))
  .map((s) => sectionHtml(s, report.judged))
  .join('\n')}
${microHtml(report.micro)}
</body></html>
`;
