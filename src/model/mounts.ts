/** Live mounts: which folder or file of the host appears where in which workload. */
import { hashOf } from './hash.ts';
import { SYSTEM_NAMESPACE } from './names.ts';
import type { KubernetesObject } from './resources.ts';

/** Kinds whose pods can be given a mount, as Kubernetes spells them, with the words that kubectl knows them by. */
export const WORKLOAD_KINDS = {
  Deployment: ['deployment', 'deployments', 'deploy'],
  StatefulSet: ['statefulset', 'statefulsets', 'sts'],
  DaemonSet: ['daemonset', 'daemonsets', 'ds'],
  ReplicaSet: ['replicaset', 'replicasets', 'rs'],
  Job: ['job', 'jobs'],
  CronJob: ['cronjob', 'cronjobs', 'cj'],
  Pod: ['pod', 'pods', 'po'],
} as const;
export type WorkloadKind = keyof typeof WORKLOAD_KINDS;

export type WorkloadRef = {
  readonly namespace: string;
  readonly kind: WorkloadKind;
  readonly name: string;
  /** Undefined: the pod's default container, as kubectl chooses it. */
  readonly container: string | undefined;
};

/** Where a mount appears: in a workload, or, for use in a `hostPath` volume of the user's own, only on the node. */
export type MountTarget =
  | {
      readonly kind: 'workload';
      readonly workload: WorkloadRef;
      /** Absolute path in the container, without `.`, `..` or a slash at the end. */
      readonly path: string;
    }
  | { readonly kind: 'node' };

/** What the user asked for, checked: paths absolute, words resolved. */
export type MountSpec = {
  /** Absolute path on the host, symbolic links resolved where it exists. */
  readonly source: string;
  /** As it was written, for messages. */
  readonly writtenSource: string;
  readonly target: MountTarget;
  readonly isReadOnly: boolean;
  /** Paths below the target, relative to it, that keep the content of the container's image: `node_modules`. */
  readonly excluded: readonly string[];
  /** Whether a source that is missing is made, as a folder (Compose's `create_host_path`). */
  readonly createsSource: boolean;
};

/** Whether file events reach the pods, and how. */
export type FileEvents = 'native' | 'relayed' | 'polling';

/** A mount as the cluster knows it: one ConfigMap in the namespace `sandbar-system`, which is also what admission reads. */
export type MountRecord = {
  /** Names the mount everywhere: `web-src-1f2e3d`. */
  readonly id: string;
  readonly source: string;
  readonly sourceType: 'Directory' | 'File';
  /** Folder of the host that the mount's container binds: the source or a folder above it. */
  readonly root: string;
  readonly target: MountTarget;
  readonly isReadOnly: boolean;
  readonly excluded: readonly string[];
  /** Id of the mount whose target holds this one's target in the same container; it is placed inside of that. */
  readonly parentId: string | undefined;
  /** `file`: declared in `sandbar.yaml`, and gone when it no longer is. `command`: made by `sandbar mount`. */
  readonly origin: 'file' | 'command';
  /** Undefined until it has been proven. */
  readonly events: FileEvents | undefined;
  /** Not in place yet, or about to go: the node follows it, and admission does not. */
  readonly isWithheld?: true;
  /** Pods run that were made before what it excludes changed; their specs do not tell. */
  readonly isRollDue?: true;
};

/** Label on the ConfigMaps; its value is the origin. Admission looks at those with `sandbar.dev/mount-in: workload`. */
export const MOUNT_LABEL = 'sandbar.dev/mount';
export const MOUNT_PLACE_LABEL = 'sandbar.dev/mount-in';

/** Before the id in the name of a pod's volume. */
export const VOLUME_PREFIX = 'sandbar-';

/** Value of that label while a mount goes into no new pod. */
const WITHHELD = 'nowhere';

/** Folder of the node below which every mount has a place named by its id. */
export const NODE_MOUNTS_DIRECTORY = '/var/lib/sandbar/mounts';

/** The mount of a target: one target, one mount, whatever its source is. Without a workload the source is what counts. */
export function mountIdOf(target: MountTarget, source: string): string {
  if (target.kind === 'node') return `${slugOf(baseName(source))}-${hashOf(source).slice(0, 6)}`;
  const { workload, path } = target;
  const { namespace, kind, name, container = '' } = workload;
  const hash = hashOf([namespace, kind, name, container, path]).slice(0, 6);
  return `${slugOf(`${name}-${baseName(path)}`)}-${hash}`;
}

/** Name of the container that hands over what lies below a root, after `sandbar-CLUSTER-`: `mount-shop-1f2e3d`. */
export function mountComponentOf(root: string): string {
  return `mount-${rootIdOf(root)}`;
}

/** Names a root: `shop-1f2e3d`. */
export function rootIdOf(root: string): string {
  return `${slugOf(baseName(root))}-${hashOf(root).slice(0, 6)}`;
}

/** Name of the volume by which a pod has a mount. */
export function volumeNameOf(id: string): string {
  return `${VOLUME_PREFIX}${id}`;
}

/** Where a mount lies on the node, for a `hostPath` volume. */
export function nodePathOf(id: string): string {
  return `${NODE_MOUNTS_DIRECTORY}/${id}`;
}

/** Names the ConfigMap of a record. */
export function recordRef(id: string): KubernetesObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: `mount-${id}`, namespace: SYSTEM_NAMESPACE } };
}

/** The ConfigMap of a record. Every value is a text, because admission's expressions and the agent read the same. */
export function recordObject(record: MountRecord): KubernetesObject {
  const { target } = record;
  const workload = target.kind === 'workload' ? target.workload : undefined;
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: {
      ...recordRef(record.id).metadata,
      labels: {
        [MOUNT_LABEL]: record.origin,
        [MOUNT_PLACE_LABEL]: record.isWithheld === true ? WITHHELD : target.kind,
      },
    },
    data: {
      id: record.id,
      source: record.source,
      sourceType: record.sourceType,
      root: record.root,
      rootId: rootIdOf(record.root),
      // Relative to the root; "." is the root itself.
      path: relativeTo(record.root, record.source),
      namespace: workload?.namespace ?? '',
      kind: workload?.kind ?? '',
      workload: workload?.name ?? '',
      container: workload?.container ?? '',
      target: target.kind === 'workload' ? target.path : '',
      readOnly: String(record.isReadOnly),
      excluded: JSON.stringify(record.excluded),
      parent: record.parentId ?? '',
      events: record.events ?? '',
      rollDue: record.isRollDue === true ? 'true' : '',
    },
  };
}

/** The record of a ConfigMap; undefined for one that holds none. */
export function parseRecord(object: KubernetesObject): MountRecord | undefined {
  const data = object['data'] as Readonly<Record<string, string>> | undefined;
  const origin = object.metadata.labels?.[MOUNT_LABEL];
  if (data?.['id'] === undefined || data['source'] === undefined) return undefined;
  const kind = data['kind'] ?? '';
  return {
    id: data['id'],
    source: data['source'],
    sourceType: data['sourceType'] === 'File' ? 'File' : 'Directory',
    root: data['root'] ?? data['source'],
    target:
      kind === ''
        ? { kind: 'node' }
        : {
            kind: 'workload',
            workload: {
              namespace: data['namespace'] ?? 'default',
              kind: kind as WorkloadKind,
              name: data['workload'] ?? '',
              container: data['container'] === '' ? undefined : data['container'],
            },
            path: data['target'] ?? '',
          },
    isReadOnly: data['readOnly'] === 'true',
    excluded: parseList(data['excluded']),
    parentId: data['parent'] === '' ? undefined : data['parent'],
    origin: origin === 'file' ? 'file' : 'command',
    events: data['events'] === '' ? undefined : (data['events'] as FileEvents | undefined),
    ...(object.metadata.labels?.[MOUNT_PLACE_LABEL] === WITHHELD ? { isWithheld: true } : {}),
    ...(data['rollDue'] === 'true' ? { isRollDue: true } : {}),
  };
}

/** What somebody edited into something else excludes nothing, as the agent sees it too. */
function parseList(text: string | undefined): readonly string[] {
  try {
    const list: unknown = JSON.parse(text ?? '[]');
    return Array.isArray(list) ? list.filter((item) => typeof item === 'string') : [];
  } catch {
    return [];
  }
}

/** Whether containers see the image's content at the same paths; nothing is excluded from a mount that is not there. */
export function hasSameExclusions(first: MountRecord | undefined, second: MountRecord): boolean {
  const sorted = (record: MountRecord | undefined): string => JSON.stringify((record?.excluded ?? []).toSorted());
  return sorted(first) === sorted(second);
}

/** How the node is asked for a mount, with the source that it is to have: another one may be in place until then. */
export function formatWanted(record: MountRecord): string {
  return `${record.id}=${rootIdOf(record.root)}/${relativeTo(record.root, record.source)}`;
}

/** `deployment/web`, with the container where one is named; the namespace only where it is not the usual one. */
export function formatWorkload(workload: WorkloadRef): string {
  const { namespace, kind, name, container } = workload;
  const prefix = namespace === 'default' ? '' : `${namespace}/`;
  return `${prefix}${kind.toLowerCase()}/${name}${container === undefined ? '' : `/${container}`}`;
}

function slugOf(text: string): string {
  const slug = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 40)
    .replace(/-+$/, '');
  return slug === '' ? 'mount' : slug;
}

/** Of a path of either kind of host: what follows the last slash or backslash. */
function baseName(path: string): string {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? '';
}

function relativeTo(root: string, source: string): string {
  if (source === root) return '.';
  const prefix = root.endsWith('/') || root.endsWith('\\') ? root : `${root}${root.includes('\\') ? '\\' : '/'}`;
  return source.slice(prefix.length).replaceAll('\\', '/');
}
