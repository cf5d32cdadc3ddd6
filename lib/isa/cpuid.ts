/**
 * CPUID feature bits by name (those of /proc/cpuinfo): leaf, register, bit, and what it takes to advertise them.
 *
 * SDM volume 2, "CPUID—CPU Identification". A feature that consists of instructions is derived from the instruction
 * rows, so that the processor never advertises what it lacks; `processor` features are behaviour of `cpu/`, `memory/`
 * and `vmx/` that exists. Features that are not in the table are not offered.
 */
import type { InsnRow } from './rows.js';

export interface FeatureRow {
  readonly name: string;
  readonly leaf: number;
  /** 0 unless given. */
  readonly subleaf?: number;
  readonly register: 'eax' | 'ebx' | 'ecx' | 'edx';
  readonly bit: number;
  /**
   * `processor`: always there. `rows`: there when a row has the feature's name, and every mnemonic of `all` has a row.
   */
  readonly by: 'processor' | 'rows';
  readonly all?: readonly string[];
  /** First processor model that advertises it; absent: every model does. */
  readonly model?: CpuModel;
}

/**
 * Processor models, each of which advertises what those before it do, and more. `lab` is what the lab's guests boot with;
 * `v2` completes the level x86-64-v2 of the System V ABI; `full` is everything that is implemented. What a processor
 * executes does not depend on its model.
 */
export const CPU_MODELS = ['lab', 'v2', 'full'] as const;
export type CpuModel = (typeof CPU_MODELS)[number];

const names = (text: string): readonly string[] => text.split(/\s+/);

const SSE3 = names('addsubps addsubpd haddps haddpd hsubps hsubpd lddqu movddup movshdup movsldup fisttp');
const SSSE3 = names(
  'pabsb pabsw pabsd palignr phaddw phaddd phaddsw phsubw phsubd phsubsw pmaddubsw pmulhrsw pshufb psignb psignw psignd',
);
const SSE4_1 = names(
  'blendpd blendps blendvpd blendvps dppd dpps extractps insertps movntdqa mpsadbw packusdw pblendvb pblendw pcmpeqq pextrb pextrd pextrw phminposuw pinsrb pinsrd pmaxsb pmaxsd pmaxud pmaxuw pminsb pminsd pminud pminuw pmovsxbd pmovsxbq pmovsxbw pmovsxdq pmovsxwd pmovsxwq pmovzxbd pmovzxbq pmovzxbw pmovzxdq pmovzxwd pmovzxwq pmuldq pmulld ptest roundpd roundps roundsd roundss',
);
const SSE4_2 = names('crc32 pcmpestri pcmpestrm pcmpgtq pcmpistri pcmpistrm');
const BMI1 = names('andn bextr blsi blsmsk blsr tzcnt');
const BMI2 = names('bzhi mulx pdep pext rorx sarx shlx shrx');
const AES = names('aesdec aesdeclast aesenc aesenclast aesimc aeskeygenassist');

const EXTENDED = 0x8000_0001;

// biome-ignore format: one row per line
export const FEATURES: readonly FeatureRow[] = [
  { name: 'fpu', leaf: 1, register: 'edx', bit: 0, by: 'rows' },
  { name: 'de', leaf: 1, register: 'edx', bit: 2, by: 'processor' },
  { name: 'pse', leaf: 1, register: 'edx', bit: 3, by: 'processor' },
  { name: 'tsc', leaf: 1, register: 'edx', bit: 4, by: 'rows' },
  { name: 'msr', leaf: 1, register: 'edx', bit: 5, by: 'rows' },
  { name: 'pae', leaf: 1, register: 'edx', bit: 6, by: 'processor' },
  { name: 'mce', leaf: 1, register: 'edx', bit: 7, by: 'processor' },
  { name: 'cx8', leaf: 1, register: 'edx', bit: 8, by: 'rows' },
  { name: 'apic', leaf: 1, register: 'edx', bit: 9, by: 'processor' },
  { name: 'sep', leaf: 1, register: 'edx', bit: 11, by: 'rows', all: ['sysenter', 'sysexit'] },
  { name: 'mtrr', leaf: 1, register: 'edx', bit: 12, by: 'processor' },
  { name: 'pge', leaf: 1, register: 'edx', bit: 13, by: 'processor' },
  { name: 'mca', leaf: 1, register: 'edx', bit: 14, by: 'processor' },
  { name: 'cmov', leaf: 1, register: 'edx', bit: 15, by: 'rows' },
  { name: 'pat', leaf: 1, register: 'edx', bit: 16, by: 'processor' },
  { name: 'pse36', leaf: 1, register: 'edx', bit: 17, by: 'processor' },
  { name: 'clflush', leaf: 1, register: 'edx', bit: 19, by: 'rows' },
  { name: 'mmx', leaf: 1, register: 'edx', bit: 23, by: 'rows' },
  { name: 'fxsr', leaf: 1, register: 'edx', bit: 24, by: 'rows', all: ['fxsave', 'fxrstor'] },
  { name: 'sse', leaf: 1, register: 'edx', bit: 25, by: 'rows' },
  { name: 'sse2', leaf: 1, register: 'edx', bit: 26, by: 'rows' },
  { name: 'ss', leaf: 1, register: 'edx', bit: 27, by: 'processor' },

  { name: 'pni', leaf: 1, register: 'ecx', bit: 0, by: 'rows', all: SSE3, model: 'v2' },
  { name: 'pclmulqdq', leaf: 1, register: 'ecx', bit: 1, by: 'rows', model: 'full' },
  { name: 'vmx', leaf: 1, register: 'ecx', bit: 5, by: 'processor' },
  { name: 'ssse3', leaf: 1, register: 'ecx', bit: 9, by: 'rows', all: SSSE3, model: 'v2' },
  { name: 'cx16', leaf: 1, register: 'ecx', bit: 13, by: 'rows' },
  { name: 'pcid', leaf: 1, register: 'ecx', bit: 17, by: 'processor' },
  { name: 'sse4_1', leaf: 1, register: 'ecx', bit: 19, by: 'rows', all: SSE4_1, model: 'v2' },
  { name: 'sse4_2', leaf: 1, register: 'ecx', bit: 20, by: 'rows', all: SSE4_2, model: 'v2' },
  { name: 'x2apic', leaf: 1, register: 'ecx', bit: 21, by: 'processor' },
  { name: 'movbe', leaf: 1, register: 'ecx', bit: 22, by: 'rows' },
  { name: 'popcnt', leaf: 1, register: 'ecx', bit: 23, by: 'rows' },
  { name: 'tsc_deadline_timer', leaf: 1, register: 'ecx', bit: 24, by: 'processor' },
  { name: 'aes', leaf: 1, register: 'ecx', bit: 25, by: 'rows', all: AES, model: 'full' },
  { name: 'xsave', leaf: 1, register: 'ecx', bit: 26, by: 'rows', all: ['xsave', 'xrstor', 'xgetbv', 'xsetbv'] },
  { name: 'rdrand', leaf: 1, register: 'ecx', bit: 30, by: 'rows', model: 'full' },

  { name: 'fsgsbase', leaf: 7, register: 'ebx', bit: 0, by: 'rows' },
  { name: 'bmi1', leaf: 7, register: 'ebx', bit: 3, by: 'rows', all: BMI1, model: 'full' },
  { name: 'smep', leaf: 7, register: 'ebx', bit: 7, by: 'processor' },
  { name: 'bmi2', leaf: 7, register: 'ebx', bit: 8, by: 'rows', all: BMI2, model: 'full' },
  { name: 'invpcid', leaf: 7, register: 'ebx', bit: 10, by: 'rows' },
  { name: 'rdseed', leaf: 7, register: 'ebx', bit: 18, by: 'rows', model: 'full' },
  { name: 'adx', leaf: 7, register: 'ebx', bit: 19, by: 'rows', all: ['adcx', 'adox'] },
  { name: 'smap', leaf: 7, register: 'ebx', bit: 20, by: 'rows', all: ['stac', 'clac'] },
  { name: 'clflushopt', leaf: 7, register: 'ebx', bit: 23, by: 'rows', model: 'full' },
  { name: 'clwb', leaf: 7, register: 'ebx', bit: 24, by: 'rows', model: 'full' },
  { name: 'umip', leaf: 7, register: 'ecx', bit: 2, by: 'processor' },
  { name: 'rdpid', leaf: 7, register: 'ecx', bit: 22, by: 'rows', model: 'full' },

  { name: 'xsaveopt', leaf: 0xd, subleaf: 1, register: 'eax', bit: 0, by: 'rows' },
  { name: 'xsavec', leaf: 0xd, subleaf: 1, register: 'eax', bit: 1, by: 'rows', model: 'full' },
  { name: 'xgetbv1', leaf: 0xd, subleaf: 1, register: 'eax', bit: 2, by: 'processor', model: 'full' },
  { name: 'xsaves', leaf: 0xd, subleaf: 1, register: 'eax', bit: 3, by: 'rows', all: ['xsaves', 'xrstors'], model: 'full' },

  { name: 'lahf_lm', leaf: EXTENDED, register: 'ecx', bit: 0, by: 'processor' },
  { name: 'lzcnt', leaf: EXTENDED, register: 'ecx', bit: 5, by: 'rows' },
  { name: 'syscall', leaf: EXTENDED, register: 'edx', bit: 11, by: 'rows', all: ['syscall', 'sysret'] },
  { name: 'nx', leaf: EXTENDED, register: 'edx', bit: 20, by: 'processor' },
  { name: 'pdpe1gb', leaf: EXTENDED, register: 'edx', bit: 26, by: 'processor' },
  { name: 'rdtscp', leaf: EXTENDED, register: 'edx', bit: 27, by: 'rows' },
  { name: 'lm', leaf: EXTENDED, register: 'edx', bit: 29, by: 'processor' },
  { name: 'invariant_tsc', leaf: 0x8000_0007, register: 'edx', bit: 8, by: 'processor' },
];

/** Feature names that rows may carry without a bit of their own in the table: sub-features and spellings. */
export const FEATURE_ALIASES: Readonly<Record<string, string>> = {
  sse3: 'pni',
  'sse4.1': 'sse4_1',
  'sse4.2': 'sse4_2',
  sse41: 'sse4_1',
  sse42: 'sse4_2',
  abm: 'lzcnt',
  x87: 'fpu',
};

/** Names of the features that are implemented. */
export const implementedFeatures = (rows: readonly InsnRow[]): ReadonlySet<string> => {
  const tagged = new Set<string>();
  const mnemonics = new Set<string>();
  for (const row of rows) {
    mnemonics.add(row.name);
    if (row.feature !== undefined) tagged.add(FEATURE_ALIASES[row.feature] ?? row.feature);
    if (row.unit === 'x87') tagged.add('fpu');
    else if (row.unit === 'mmx') tagged.add('mmx');
  }
  const features = new Set<string>();
  for (const row of FEATURES) {
    if (row.by === 'processor') features.add(row.name);
    else if (tagged.has(row.name) && (row.all ?? []).every((m) => mnemonics.has(m))) features.add(row.name);
  }
  return features;
};

/** Names of the features that a model advertises, of those that are implemented. */
export const advertisedFeatures = (
  model: CpuModel,
  implemented: ReadonlySet<string>,
): ReadonlySet<string> => {
  const level = CPU_MODELS.indexOf(model);
  const names = FEATURES.filter((f) => f.model === undefined || CPU_MODELS.indexOf(f.model) <= level);
  return new Set(names.map((f) => f.name).filter((name) => implemented.has(name)));
};
