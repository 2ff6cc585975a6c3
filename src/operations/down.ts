/** `down`: takes a cluster's containers and network away; its volumes too when asked. */
import { apply } from '../engine/apply.ts';
import { observeDocker, observeRegistry } from '../engine/observe.ts';
import { plan } from '../engine/plan.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { networkName } from '../model/names.ts';
import type { Ports } from '../model/ports.ts';
import type { ObservedResource } from '../model/resources.ts';
import { withClusterLock } from './access.ts';
import { releaseRegistries } from './registry.ts';
import { remove } from './steps.ts';

export type DownRequest = {
  readonly clusterName: string;
  /** Takes the data too: every object, image, claim, bucket and snapshot of the cluster. */
  readonly includesVolumes: boolean;
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
  readonly signal: AbortSignal;
};

export type DownResult = {
  readonly clusterName: string;
  readonly removed: readonly string[];
  readonly kept: readonly string[];
};

/** Removes what carries the cluster's label. A cluster that is not there is no failure. */
export async function down(request: DownRequest, ports: Ports, emit: Emit): Promise<DownResult> {
  const { clusterName, signal } = request;
  return withClusterLock(clusterName, { host: ports.host, emit, signal }, async () => {
    const [docker, { state: attachments }] = await Promise.all([
      observeDocker(ports.runtime, clusterName),
      observeRegistry(ports.runtime, { registryName: undefined, networkName: networkName(clusterName) }),
    ]);
    const found = [...docker.state.values(), ...attachments.values()];
    const isRemoved = (resource: ObservedResource): boolean => resource.kind !== 'volume' || request.includesVolumes;
    const steps = plan([], new Map(found.filter(isRemoved).map((resource) => [resource.id, resource])));
    const lost = steps.filter((step) => step.losesData);
    if (lost.length > 0) await confirmLoss(request);
    emit({ type: 'plan', steps: steps.map(({ id, owner, cause }) => ({ id, owner, cause })) });
    const failures = await apply(steps, {
      runStep: async (step) => {
        if (step.verb === 'remove') await remove(step.observed, { runtime: ports.runtime });
      },
      emit,
      clock: ports.clock,
      concurrency: 6,
      signal,
    });
    if (signal.aborted) throw signal.reason;
    if (failures[0] !== undefined) throw failures[0].error;
    const released = await releaseRegistries(ports, signal);
    return {
      clusterName,
      removed: [
        ...steps.map((step) => step.id.slice('remove '.length)),
        ...released.map((name) => `container/${name}`),
      ],
      kept: found.filter((resource) => !isRemoved(resource)).map((resource) => resource.ref),
    };
  });
}

async function confirmLoss(request: DownRequest): Promise<void> {
  const question = `this removes all data of cluster "${request.clusterName}": objects, images, claims, buckets, snapshots`;
  if (request.confirm === undefined) {
    throw new SandbarError('CONFIRMATION_NEEDED', question, { hint: 'add --yes to agree' });
  }
  if (!(await request.confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was removed', { exitCode: 1 });
}
