/** Records of mounts in a cluster, and the containers that they need. */
import { mountContainer } from '../components/mounts.ts';
import { observeDocker } from '../engine/observe.ts';
import { plan } from '../engine/plan.ts';
import { SandbarError } from '../model/errors.ts';
import { MOUNT_LABEL, mountComponentOf, parseRecord, type MountRecord } from '../model/mounts.ts';
import { LABELS, SYSTEM_NAMESPACE } from '../model/names.ts';
import type { Cluster, Ports, Runtime } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { runStep } from './steps.ts';

const CONFIG_MAP = { apiVersion: 'v1', kind: 'ConfigMap' };

/** Every mount that a cluster knows, by id. */
export async function listRecords(cluster: Cluster): Promise<readonly MountRecord[]> {
  return parseRecords(await cluster.list(CONFIG_MAP, { labelSelector: MOUNT_LABEL, namespace: SYSTEM_NAMESPACE }));
}

/** The records among ConfigMaps, by id. */
export function parseRecords(configMaps: readonly KubernetesObject[]): readonly MountRecord[] {
  return configMaps
    .filter(({ metadata }) => metadata.labels?.[MOUNT_LABEL] !== undefined)
    .map(parseRecord)
    .filter((record) => record !== undefined)
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/** Makes sure that the container of a root runs: creates, replaces or starts it. */
export async function ensureMountContainer(
  root: string,
  options: {
    readonly clusterName: string;
    readonly imageRef: string;
    readonly ports: Ports;
    readonly cluster: Cluster;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { clusterName, ports, cluster, signal } = options;
  const { state } = await observeDocker(ports.runtime, clusterName);
  if (!state.has('volume/mounts')) {
    throw new SandbarError('CLUSTER_NOT_RUNNING', `cluster "${clusterName}" was made before it could have mounts`, {
      hint: 'sandbar up brings it up to date',
    });
  }
  const resource = mountContainer(options, root);
  const observed = state.get(resource.id);
  const steps = plan([resource], new Map(observed === undefined ? [] : [[resource.id, observed]]));
  const waitPorts = { ...ports, cluster };
  for (const step of steps) {
    signal.throwIfAborted();
    if (step.verb === 'wait') continue;
    await runStep(
      step,
      { clusterName, waitPorts, objectStore: undefined, timeoutMs: undefined, signal },
      () => undefined,
    );
  }
}

/** Removes the mount containers whose root no record uses. */
export async function removeUnusedMountContainers(
  records: readonly MountRecord[],
  { clusterName, runtime }: { readonly clusterName: string; readonly runtime: Runtime },
): Promise<void> {
  const used = new Set(records.map(({ root }) => `container/${mountComponentOf(root)}`));
  const containers = await runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  const unused = containers.filter(
    ({ labels }) => labels[LABELS.component] === 'mounts' && !used.has(labels[LABELS.resource] ?? ''),
  );
  for (const { id } of unused) await runtime.removeContainer(id);
}
