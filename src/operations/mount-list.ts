/** `mounts`: every mount of a cluster, as it is wanted and as it is. */
import { SandbarError } from '../model/errors.ts';
import { formatWorkload, nodePathOf, type MountRecord, type MountTarget } from '../model/mounts.ts';
import type { Ports } from '../model/ports.ts';
import { shownEvents, type ShownEvents } from '../mounts/events.ts';
import { accessCluster, withCluster, type ClusterAccess } from './access.ts';
import { listPlaced, type PlacedMount } from './mount-agent.ts';
import { listRecords } from './mount-records.ts';
import { isRelayRunning } from './relay.ts';

/** One line of `sandbar mounts`. */
export type MountListing = {
  readonly id: string;
  readonly source: string;
  /** Path in the container; on the node where no workload has it. */
  readonly target: string;
  readonly namespace: string | undefined;
  readonly workload: string | undefined;
  readonly container: string | undefined;
  readonly state: PlacedMount['state'] | 'unknown';
  readonly detail: string;
  readonly events: ShownEvents;
  readonly fileSystem: string;
  readonly ownership: PlacedMount['ownership'];
  readonly isReadOnly: boolean;
  readonly excluded: readonly string[];
  readonly parentId: string | undefined;
  readonly origin: MountRecord['origin'];
  readonly nodePath: string;
};

export async function listMounts(
  clusterName: string,
  ports: Ports,
  { namespace }: { readonly namespace: string | undefined },
): Promise<readonly MountListing[]> {
  return listMountsThrough(await accessCluster(ports.runtime, clusterName), ports, { namespace });
}

/** The same of a cluster that was found already. */
export async function listMountsThrough(
  access: ClusterAccess,
  ports: Ports,
  { namespace }: { readonly namespace: string | undefined },
): Promise<readonly MountListing[]> {
  const [records, placed, isRunning] = await Promise.all([
    withCluster(access, ports, listRecords),
    // Without its agent a cluster has its mounts all the same; only their state is not known.
    listPlaced(ports.runtime, access.name).catch((error: unknown) => {
      if (error instanceof SandbarError) return error.message;
      throw error;
    }),
    isRelayRunning(ports.host, access.name),
  ]);
  return records
    .filter(({ target }) => namespace === undefined || namespaceOf(target) === namespace)
    .map((record) => describeRecord(record, placed, { isRunning }));
}

function describeRecord(
  record: MountRecord,
  placed: readonly PlacedMount[] | string,
  relay: { readonly isRunning: boolean },
): MountListing {
  const { id, source, target, isReadOnly, excluded, parentId, origin } = record;
  const found = typeof placed === 'string' ? undefined : placed.find((one) => one.id === id);
  const workload = target.kind === 'workload' ? target.workload : undefined;
  return {
    id,
    source,
    target: target.kind === 'workload' ? target.path : nodePathOf(id),
    namespace: workload?.namespace,
    workload: workload && formatWorkload({ ...workload, namespace: 'default', container: undefined }),
    container: workload?.container,
    state: found?.state ?? (typeof placed === 'string' ? 'unknown' : 'waiting'),
    detail: found?.detail ?? (typeof placed === 'string' ? placed : 'the agent does not know it yet'),
    events: shownEvents(record.events, relay),
    fileSystem: found?.fileSystem ?? '',
    ownership: found?.ownership ?? '',
    isReadOnly,
    excluded,
    parentId,
    origin,
    nodePath: nodePathOf(id),
  };
}

function namespaceOf(target: MountTarget): string | undefined {
  return target.kind === 'workload' ? target.workload.namespace : undefined;
}
