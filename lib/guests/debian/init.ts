/**
 * The guest's /init: reads the exit leaves with Debian's `cpuid` tool, runs the workload, reads them again, powers off.
 *
 * Lines that start with `[vmxlab]` are for the host: it cuts the console at them (`lab/readings.ts`).
 */
/** CPUID leaves of a layout that the guest asks: the total, and the count by exit type (`hypervisor/lab-leaves.ts`). */
export interface LeafNumbers {
  readonly total: number;
  readonly byReason: number;
}

const leaf = (n: number): string => `0x${n.toString(16)}`;

/** Highest exit type that is queried. */
export const LAST_REASON = 69;

export const INIT_LINE = '[vmxlab] init';
export const WORKLOAD_DONE = '[vmxlab] workload done';

/** @param leaves which leaves to query; @param shell start a shell instead */
export const initScript = (leaves: LeafNumbers, shell = false): string => `#!/bin/busybox sh
echo "${INIT_LINE}"
export PATH=/bin:/usr/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
${shell ? shellPart : labPart(leaves)}
poweroff -f
`;

const shellPart = `echo "vmxlab: a busybox shell; exit or poweroff -f ends the machine"
setsid cttyhack sh`;

const labPart = (leaves: LeafNumbers): string => `leaves() {
  echo "[vmxlab] leaves $1"
  cpuid -1 -l ${leaf(leaves.total)}
  n=0
  while [ $n -le ${LAST_REASON} ]; do cpuid -1 -l ${leaf(leaves.byReason)} -s $n; n=$((n+1)); done
  echo "[vmxlab] leaves end"
}
leaves boot
echo "[vmxlab] workload"
sh /workload
echo "${WORKLOAD_DONE}"
leaves workload`;
