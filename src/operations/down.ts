/** `down`: takes a cluster's containers and network away; its volumes too when asked. */
import { apply } from '../engine/apply.ts';
import { observeDocker, observeRegistry } from '../engine/observe.ts';
import { plan } from '../engine/plan.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { LABELS, networkName } from '../model/names.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import type { ObservedResource, Plan } from '../model/resources.ts';
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
    const [docker, attachments] = await Promise.all([
      observeDocker(ports.runtime, clusterName),
      findAttachments(ports.runtime, clusterName),
    ]);
    const isNetwork = ({ kind }: ObservedResource): boolean => kind === 'network';
    const network = [...docker.state.values()].filter(isNetwork);
    const inside = [...docker.state.values()].filter((resource) => !isNetwork(resource));
    const isRemoved = (resource: ObservedResource): boolean => resource.kind !== 'volume' || request.includesVolumes;
    const first = removalOf(inside.filter(isRemoved));
    if (first.some((step) => step.losesData)) await confirmLoss(request);
    const announced = [...first, ...removalOf([...attachments, ...network])];
    emit({ type: 'plan', steps: announced.map(({ id, owner, cause }) => ({ id, owner, cause })) });
    const applied = { ports, emit, signal };
    await applyRemovals(first, applied);
    // Until nobody else holds the lock, another cluster's `up` may put the registry on the network.
    const last = await ports.host.withLock('allocation', { onWait: () => undefined, signal }, async () => {
      const attached = await findAttachments(ports.runtime, clusterName);
      const detached = removalOf(attached);
      await applyRemovals(detached, applied);
      // Only those that were this cluster's too: without a cluster is also one that somebody else makes just now.
      const named = docker.networks.filter(({ labels }) => labels[LABELS.cluster] === clusterName);
      const registries = [
        ...attached.map(({ ref }) => ref),
        ...named.flatMap(({ labels }) => labels[LABELS.registry] ?? []),
      ];
      const released = await releaseRegistries(registries, ports.runtime);
      const gone = removalOf(network);
      await applyRemovals(gone, applied);
      return [...idsOf([...detached, ...gone]), ...released.map((name) => `container/${name}`)];
    });
    return {
      clusterName,
      removed: [...idsOf(first), ...last],
      kept: inside.filter((resource) => !isRemoved(resource)).map((resource) => resource.ref),
    };
  });
}

/** Registries on the cluster's network, as resources of the cluster. */
async function findAttachments(runtime: Runtime, clusterName: string): Promise<readonly ObservedResource[]> {
  const wanted = { registryName: undefined, networkName: networkName(clusterName) };
  return [...(await observeRegistry(runtime, wanted)).state.values()];
}

function idsOf(steps: Plan): readonly string[] {
  return steps.map((step) => step.id.slice('remove '.length));
}

function removalOf(resources: readonly ObservedResource[]): Plan {
  return plan([], new Map(resources.map((resource) => [resource.id, resource])));
}

async function applyRemovals(
  steps: Plan,
  { ports, emit, signal }: { readonly ports: Ports; readonly emit: Emit; readonly signal: AbortSignal },
): Promise<void> {
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
}

async function confirmLoss(request: DownRequest): Promise<void> {
  const question = `this removes all data of cluster "${request.clusterName}": objects, images, claims, buckets, snapshots`;
  if (request.confirm === undefined) {
    throw new SandbarError('CONFIRMATION_NEEDED', question, { hint: 'add --yes to agree' });
  }
  if (!(await request.confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was removed', { exitCode: 1 });
}
