/** What each step of a plan does to Docker, Kubernetes and the object store. One step, one deed. */
import type { StepFailure } from '../engine/apply.ts';
import { fingerprintOf } from '../engine/fingerprint.ts';
import { labelsFor } from '../engine/observe.ts';
import { waitUntilReady, type WaitPorts } from '../engine/wait.ts';
import { SandbarError } from '../model/errors.ts';
import type { Cluster, ObjectStore, Runtime } from '../model/ports.ts';
import type { Deed, KubernetesObject, ObservedResource, Resource, Step } from '../model/resources.ts';
import { recordRef } from '../model/mounts.ts';
import { isOutdated, podsOf, rollWorkload, settleRollout } from './mount-pods.ts';
import { findWorkload, planRollout } from './mount-workloads.ts';

/** The agent gives pods 1.2 s, the control plane writes down what it has acknowledged anyway. */
const STOP_TIMEOUT_S = 10;

export type StepTargets = {
  readonly clusterName: string;
  readonly waitPorts: WaitPorts;
  readonly objectStore: ObjectStore | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

export async function runStep(step: Step, targets: StepTargets, report: (text: string) => void): Promise<void> {
  const { runtime, cluster } = targets.waitPorts;
  switch (step.verb) {
    case 'create':
    case 'update':
      await make(step.resource, targets);
      break;
    case 'start':
      await runtime.startContainer(step.observed.ref);
      break;
    case 'resume':
    case 'pause':
    case 'stop':
    case 'restart':
      await runDeed(step, runtime);
      break;
    case 'remove':
      await remove(step.observed, { runtime, cluster, objectStore: targets.objectStore });
      break;
    case 'wait':
      await waitUntilReady(step.resource, targets.waitPorts, { ...targets, onQuestion: report });
      break;
    case 'roll':
      await roll(step, targets, report);
      break;
  }
}

/** Changes whether a container runs, for which the engine is enough. */
export async function runDeed({ verb, observed: { ref } }: Deed, runtime: Runtime): Promise<void> {
  switch (verb) {
    case 'resume':
      await runtime.unpauseContainer(ref);
      break;
    case 'pause':
      await runtime.pauseContainer(ref);
      break;
    case 'stop':
      await runtime.stopContainer(ref, { timeoutS: STOP_TIMEOUT_S });
      break;
    case 'restart':
      await runtime.restartContainer(ref, { timeoutS: STOP_TIMEOUT_S });
      break;
  }
}

/** Pods that a change of the workload itself has renewed meanwhile are not rolled once more. */
async function roll(
  step: Extract<Step, { readonly verb: 'roll' }>,
  targets: StepTargets,
  report: (text: string) => void,
): Promise<void> {
  const { cluster, clock } = targets.waitPorts;
  const waiting = { clock, signal: targets.signal, timeoutMs: targets.timeoutMs };
  await settleRollout(cluster, step.workload, waiting);
  const pods = await cluster.list({ apiVersion: 'v1', kind: 'Pod' }, { namespace: step.workload.namespace });
  if (!isOutdated(pods, step)) {
    await settleDue(step, cluster);
    return;
  }
  const object = await findWorkload(cluster, step.workload);
  if (object === undefined) return;
  const planned = planRollout({ ref: step.workload, object }, podsOf(step.workload, pods));
  if (planned !== 'roll') {
    // Paused, or renewed by the user alone: that is no failure.
    report(`pods that run stay as they are; ${planned.advice}`);
    return;
  }
  await rollWorkload(cluster, step.workload, waiting);
  await settleDue(step, cluster);
}

async function settleDue({ dueIds }: Extract<Step, { readonly verb: 'roll' }>, cluster: Cluster): Promise<void> {
  for (const id of dueIds) await cluster.patch(recordRef(id), { data: { rollDue: '' } });
}

/** Removes one observed resource; one that is gone already counts as removed. */
export async function remove(
  observed: ObservedResource,
  from: { readonly runtime: Runtime; readonly cluster?: Cluster; readonly objectStore?: ObjectStore | undefined },
): Promise<void> {
  switch (observed.kind) {
    case 'container':
      await from.runtime.removeContainer(observed.ref);
      break;
    case 'volume':
      await from.runtime.removeVolume(observed.ref);
      break;
    case 'network':
      await from.runtime.removeNetwork(observed.ref);
      break;
    case 'attachment':
      await from.runtime.disconnectNetwork(observed.networkName ?? '', observed.ref);
      break;
    case 'object':
      await from.cluster?.remove(observed.object as KubernetesObject);
      break;
    case 'bucket':
      await from.objectStore?.removeBucket(observed.ref, { isForced: false });
      break;
  }
}

async function make(resource: Resource, targets: StepTargets): Promise<void> {
  const { runtime, cluster } = targets.waitPorts;
  const labels = labelsFor(targets.clusterName, resource, fingerprintOf(resource));
  switch (resource.kind) {
    case 'network':
      await runtime.createNetwork({ ...resource, labels });
      break;
    case 'volume':
      await runtime.createVolume({ name: resource.name, labels });
      break;
    case 'container':
      // Files before the start: a container that ever ran had all of them.
      await runtime.startContainer(await runtime.createContainer(resource.container, resource.files, labels));
      break;
    case 'attachment':
      try {
        await runtime.connectNetwork(resource.networkName, resource.containerName, resource.address);
      } catch (error) {
        // Another cluster that was removed meanwhile needs the container no more.
        const networks = await runtime.listNetworks();
        if (networks.some(({ name }) => name === resource.networkName)) throw error;
      }
      break;
    case 'object':
      await cluster.apply(resource.object);
      break;
    case 'bucket':
      await targets.objectStore?.createBucket(resource.bucket);
      break;
  }
}

/** Throws the first failure of a run, which then names the others. */
export function throwFailures(failures: readonly StepFailure[]): void {
  const [first, ...rest] = failures;
  if (first === undefined) return;
  if (rest.length === 0 || !(first.error instanceof SandbarError)) throw first.error;
  const { error } = first;
  const others = rest.map(
    ({ step, error: other }) => `${step.id}: ${other instanceof Error ? other.message : String(other)}`,
  );
  throw new SandbarError(error.code, error.message, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    details: [...error.details, ...others],
    cause: error,
  });
}
