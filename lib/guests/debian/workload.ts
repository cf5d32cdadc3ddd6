/**
 * The default workload: what a system does all day, small. It forks and executes, compresses, hashes, and walks a tree
 * of files, in about 300 million instructions; each part prints what it did.
 */
export const DEFAULT_WORKLOAD = `# fork and exec: page tables are made and torn down
i=0; while [ $i -lt 100 ]; do /bin/busybox true; i=$((i+1)); done; echo "100 processes"
# compress: touches memory in order
dd if=/dev/zero bs=64k count=16 2>/dev/null | gzip -c | wc -c
# hash: hardly touches memory at all
dd if=/dev/zero bs=64k count=32 2>/dev/null | md5sum
# walk a tree of files
find / -xdev | wc -l
find /sys | wc -l
`;
