/** What a reset does inside of the node, and what it leaves there. */
import { PassThrough } from 'node:stream';
import type { Kept } from '../config/keep.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { MOUNT_LABEL } from '../model/mounts.ts';
import { PORT_LABEL } from '../model/published.ts';
import { SYSTEM_NAMESPACE, containerName } from '../model/names.ts';
import type { Cluster, Ports } from '../model/ports.ts';
import type { KeptKeys } from './datastore.ts';
import { inPhase } from './phase.ts';

/** Finds out which keys of the datastore are kept; an error where a namespace is not there. */
export async function describeKept(cluster: Cluster, kept: Kept): Promise<KeptKeys> {
  const { hasMounts, hasPorts, hasVolumes, namespaces } = kept;
  const [configMaps] = await Promise.all([
    cluster.list({ apiVersion: 'v1', kind: 'ConfigMap' }, { namespace: SYSTEM_NAMESPACE }),
    requireNamespaces(cluster, namespaces),
  ]);
  const isKept = (origin: string | undefined, hasAll: boolean): boolean =>
    origin !== undefined && (hasAll || origin === 'file');
  // Mounts and ports of the file would come back anyway; kept, they stay in place all the time.
  const keys = configMaps
    .filter(
      ({ metadata: { labels } }) => isKept(labels?.[MOUNT_LABEL], hasMounts) || isKept(labels?.[PORT_LABEL], hasPorts),
    )
    .map(({ metadata }) => `/registry/configmaps/${SYSTEM_NAMESPACE}/${metadata.name}`);
  return { keys, namespaces, hasVolumes };
}

/** What of the volumes is kept: names of PersistentVolumes. Known for good only while nobody can bind another. */
export async function findKeptVolumes(
  cluster: Cluster,
  { hasVolumes, namespaces }: Kept,
): Promise<'all' | readonly string[]> {
  if (hasVolumes) return 'all';
  if (namespaces.length === 0) return [];
  const volumes = await cluster.list({ apiVersion: 'v1', kind: 'PersistentVolume' }, {});
  return volumes.flatMap(({ metadata, spec }) => {
    const { claimRef } = spec as { readonly claimRef?: { readonly namespace?: string } };
    return namespaces.includes(claimRef?.namespace ?? '') ? [metadata.name] : [];
  });
}

/** Stops the pods until the datastore is back, then kills them and takes the directories of their volumes away. */
export async function killPods(
  { namespaces, hasMounts }: Kept,
  options: {
    readonly ports: Ports;
    readonly emit: Emit;
    readonly clusterName: string;
    readonly keptVolumes: 'all' | readonly string[];
    /** Passed when the API knows of none of them any more, and of none of those after. */
    readonly until: Promise<void>;
    readonly signal: AbortSignal;
  },
): Promise<{ readonly pods: number; readonly volumes: number }> {
  const { ports, clusterName, keptVolumes, until, signal } = options;
  const names = keptVolumes === 'all' ? 'all' : keptVolumes.join(',');
  const command = [
    ...['sandbar-agent', 'reset'],
    ...(namespaces.length === 0 ? [] : ['--keep-namespaces', namespaces.join(',')]),
    ...(names === '' ? [] : ['--keep-volumes', names]),
    ...(hasMounts ? ['--keep-mounts'] : []),
  ];
  return inPhase('pods', 'killing them', options, async () => {
    const stdin = new PassThrough();
    void until.then(() => stdin.end());
    const { exitCode, stdout, stderr } = await ports.runtime.exec(containerName(clusterName, 'agent'), command, {
      stdin,
      signal,
    });
    // What it said before is only that it has begun.
    const last = stdout.trim().split('\n').at(-1) ?? '';
    if (exitCode !== 0 || last === '') {
      throw new SandbarError('COMMAND_FAILED', `the agent could not end the pods: ${stderr.trim()}`, {
        hint: 'sandbar logs agent shows more; sandbar reset tries again',
      });
    }
    const result = JSON.parse(last) as { readonly pods: number; readonly volumes: number };
    return { result, text: `${String(result.pods)} ended, ${String(result.volumes)} volumes removed` };
  });
}

async function requireNamespaces(cluster: Cluster, namespaces: readonly string[]): Promise<void> {
  if (namespaces.length === 0) return;
  const present = (await cluster.list({ apiVersion: 'v1', kind: 'Namespace' }, {})).map(
    ({ metadata }) => metadata.name,
  );
  const missing = namespaces.find((namespace) => !present.includes(namespace));
  if (missing === undefined) return;
  throw new SandbarError('NOT_FOUND', `there is no namespace ${missing} to keep`, {
    hint: `there are ${present.join(', ')}`,
  });
}
