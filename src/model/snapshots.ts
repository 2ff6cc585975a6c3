/** Snapshots: the state of a cluster at one moment, as a folder in its volume `snapshots`. */
import { hashOf } from './hash.ts';
import type { Identity } from './identity.ts';
import { clusterNameProblem } from './names.ts';
import { findKubernetes, minorOf, upgradeProblem } from './versions.ts';

/** Id of the volume that holds a cluster's snapshots; no part of the cluster uses it, so that `up` leaves it alone. */
export const SNAPSHOTS_VOLUME = 'volume/snapshots';

/** On the container that works on snapshots: name of the one that is being restored. One that is left over tells of it. */
export const RESTORING_LABEL = 'dev.sandbar.restoring';

/** An image that was on the node; images themselves are no part of a snapshot. */
export type SnapshotImage = { readonly name: string; readonly id: string };

/** `snapshot.json` in a snapshot's folder. It is written last: a folder without it is no snapshot. */
export type Snapshot = {
  readonly version: 1;
  readonly name: string;
  /** RFC 3339. */
  readonly created: string;
  readonly cluster: string;
  /** As of the datastore: `v1.36.3`. */
  readonly kubernetes: string;
  readonly network: { readonly podSubnet: string; readonly serviceSubnet: string };
  readonly images: readonly SnapshotImage[];
  /** Which key its Secrets are encrypted with; absent where they are not. */
  readonly keyId?: string;
  /** What each part takes on disk; `objects` is null where the cluster had no object store. */
  readonly sizeBytes: { readonly datastore: number; readonly volumes: number; readonly objects: number | null };
};

/** What a snapshot must fit to be restored. */
export type SnapshotGround = Pick<Snapshot, 'cluster' | 'kubernetes' | 'network'> & { readonly keyId: string };

/** Why a name is not usable for a snapshot, or undefined when it is: the rule is that of clusters' names. */
export function snapshotNameProblem(name: string): string | undefined {
  return clusterNameProblem(name)?.replace(/^cluster/, 'snapshot');
}

/** `2026-05-01-120000`, in UTC. */
export function defaultSnapshotName(nowMs: number): string {
  const [date = '', time = ''] = new Date(nowMs).toISOString().split('T');
  return `${date}-${time.slice(0, 8).replaceAll(':', '')}`;
}

/** Reads `snapshot.json`; undefined when it is none of this version. Its name becomes a path: it must be one of ours. */
export function parseSnapshot(text: string): Snapshot | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const snapshot = value as Partial<Snapshot> | null;
  const isWhole =
    snapshot?.version === 1 &&
    typeof snapshot.name === 'string' &&
    snapshotNameProblem(snapshot.name) === undefined &&
    snapshot.network !== undefined &&
    snapshot.sizeBytes !== undefined &&
    Array.isArray(snapshot.images);
  return isWhole ? (snapshot as Snapshot) : undefined;
}

/** Bytes of all its parts. */
export function sizeOf({ sizeBytes: { datastore, volumes, objects } }: Snapshot): number {
  return datastore + volumes + (objects ?? 0);
}

/** Why a snapshot cannot be restored in this cluster, with the way out; undefined when it can. */
export function misfitOf(
  snapshot: Snapshot,
  ground: SnapshotGround,
): { readonly problem: string; readonly fix: string } | undefined {
  if (snapshot.cluster !== ground.cluster) {
    return {
      problem: `it was taken of cluster "${snapshot.cluster}", whose node and volumes are named after it`,
      fix: `sandbar up --name ${snapshot.cluster} makes one of this name, --name ${snapshot.cluster} imports there`,
    };
  }
  const upgrade = upgradeProblem(snapshot.kubernetes, ground.kubernetes);
  if (upgrade !== undefined) {
    const minor = findKubernetes(`1.${String(minorOf(snapshot.kubernetes))}`);
    return {
      problem: `its objects are of Kubernetes ${snapshot.kubernetes}, the cluster is ${ground.kubernetes}`,
      fix:
        upgrade === 'newer' && minor !== undefined
          ? `set kubernetes.version to '${minor}' in sandbar.yaml, then sandbar up`
          : 'use the version of Sandbar that it was taken with',
    };
  }
  if (snapshot.keyId !== undefined && snapshot.keyId !== ground.keyId) {
    return {
      problem: 'its Secrets are encrypted with the key of another cluster, which is not part of it',
      fix: 'take it anew where kubernetes.encryptionAtRest is off and its Secrets have been written again',
    };
  }
  const { podSubnet, serviceSubnet } = snapshot.network;
  if (serviceSubnet !== ground.network.serviceSubnet) {
    return {
      problem: `its Services are in ${serviceSubnet}, those of the cluster in ${ground.network.serviceSubnet}`,
      fix: `sandbar down --volumes, then sandbar up --service-subnet ${serviceSubnet} --pod-subnet ${podSubnet}`,
    };
  }
  return undefined;
}

/** What an exported snapshot may hold at its top. */
const MEMBERS = ['snapshot.json', 'datastore.db', 'volumes', 'objects'];

/** Why a member of an archive is not unpacked; undefined when it is. */
export function memberProblem(path: string): string | undefined {
  const parts = path.replace(/\/$/, '').split('/');
  if (path.startsWith('/') || parts.includes('..') || parts.includes('')) return `${path} leads out of the snapshot`;
  return MEMBERS.includes(parts[0] ?? '') ? undefined : `${path} is no part of a snapshot`;
}

/** Tells keys apart without telling a key. */
export function keyIdOf({ encryptionKey }: Pick<Identity, 'encryptionKey'>): string {
  return hashOf(encryptionKey);
}
