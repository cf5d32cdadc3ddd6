/** Which MMU a VM gets: the two-dimensional one with `ept=1`, the shadow MMU with `ept=0`. */
import type { MmuFactory } from '../vm.js';
import type { MmuDeps } from './mmu.js';
import { createShadowMmu } from './shadow.js';
import { createTdpMmu } from './tdp.js';

export const createMmu: MmuFactory = (parts) => {
  const deps: MmuDeps = {
    memory: parts.port.memory,
    frames: parts.frames,
    slots: parts.slots,
    vcpu: parts.vcpu,
    stats: parts.stats,
    trace: parts.trace,
    options: {
      eptad: parts.params.eptad,
      tdpMmu: parts.kvm.tdp_mmu,
      nxHugePages: parts.kvm.nx_huge_pages,
      maxPhyAddr: parts.maxPhyAddr,
      gbPages: parts.pages1G,
      apicAccessPage: parts.params.flexpriority,
      mmioCaching: parts.kvm.mmio_caching,
    },
  };
  return parts.params.ept ? createTdpMmu(deps) : createShadowMmu(deps);
};
