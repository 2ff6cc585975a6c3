/** Pods as the API server tells of them, and all that they are explained from. */
import { diagnose, type ClusterObservation, type Snapshot } from '../../src/diagnosis/diagnose.ts';
import type { World } from '../../src/diagnosis/explanation.ts';
import type { ContainerStatus, Node, Objects, Pod, WarningEvent } from '../../src/diagnosis/kubernetes.ts';
import { checkPods } from '../../src/diagnosis/pods.ts';
import { contextName } from '../../src/model/names.ts';
import { fakeIdentity, SPEC } from './cluster.ts';

export const NOW_MS = Date.parse('2026-03-01T12:00:00Z');

export function ago(seconds: number): string {
  return new Date(NOW_MS - seconds * 1000).toISOString();
}

type PodChanges = {
  readonly metadata?: Partial<Pod['metadata']>;
  readonly spec?: Partial<NonNullable<Pod['spec']>>;
  readonly status?: Partial<NonNullable<Pod['status']>>;
};

/** `shop/web`, which a node has, with one container `main` of the image `shop:1`. */
export function podWith({ metadata, spec, status }: PodChanges = {}): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'shop', creationTimestamp: ago(600), ...metadata },
    spec: { nodeName: 'sandbar-dev', containers: [{ name: 'main', image: 'shop:1' }], ...spec },
    status: { phase: 'Running', containerStatuses: [containerStatus({})], ...status },
  };
}

/** The same before it has a node. */
export function unscheduledPod(spec: Partial<NonNullable<Pod['spec']>>, message = 'no reason'): Pod {
  return {
    ...podWith(),
    spec: { containers: [{ name: 'main', image: 'shop:1' }], ...spec },
    status: {
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }],
    },
  };
}

/** Running and ready, unless `changes` say otherwise. */
export function containerStatus(changes: Partial<ContainerStatus>): ContainerStatus {
  return { name: 'main', ready: true, restartCount: 0, state: { running: { startedAt: ago(300) } }, ...changes };
}

/** A pod whose container waits. */
export function waitingPod(reason: string, message = '', container: object = {}): Pod {
  return podWith({
    spec: { containers: [{ name: 'main', image: 'shop:1', ...container }] },
    status: {
      phase: 'Pending',
      containerStatuses: [containerStatus({ ready: false, state: { waiting: { reason, message } } })],
    },
  });
}

/** A pod whose container ends again and again. */
export function crashingPod(
  end: NonNullable<NonNullable<ContainerStatus['lastState']>['terminated']>,
  container: object = {},
): Pod {
  return podWith({
    spec: { containers: [{ name: 'main', image: 'shop:1', ...container }] },
    status: {
      containerStatuses: [
        containerStatus({
          ready: false,
          restartCount: 3,
          state: { waiting: { reason: 'CrashLoopBackOff' } },
          lastState: { terminated: { finishedAt: ago(5), ...end } },
        }),
      ],
    },
  });
}

export function eventOf(reason: string, message: string, involved: object = {}): WarningEvent {
  return {
    involvedObject: { kind: 'Pod', namespace: 'shop', name: 'web', ...involved },
    reason,
    message,
    lastTimestamp: ago(5),
  };
}

export function nodeWith(changes: { readonly spec?: Node['spec']; readonly status?: Node['status'] } = {}): Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'sandbar-dev', labels: { 'kubernetes.io/os': 'linux' } },
    spec: changes.spec ?? {},
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      allocatable: { cpu: '2', memory: '4Gi', pods: '110' },
      ...changes.status,
    },
  };
}

const STANDARD = {
  apiVersion: 'storage.k8s.io/v1',
  kind: 'StorageClass',
  metadata: { name: 'standard', annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
};

export function worldOf(objects: Partial<Objects>, changes: Partial<Omit<World, 'objects'>> = {}): World {
  return {
    objects: {
      nodes: [nodeWith()],
      pods: [],
      namespaces: [],
      claims: [],
      storageClasses: [STANDARD],
      webhooks: [],
      endpointSlices: [],
      apiServices: [],
      definitions: [],
      workloads: [],
      events: [],
      ...objects,
    },
    nowMs: NOW_MS,
    engineImages: new Set(),
    nodeImages: new Set(),
    lastLines: new Map(),
    ...changes,
  };
}

/** What is told of pods, one line each. */
export function pods(world: World): readonly string[] {
  return checkPods(world).map(({ severity, subject, message }) => `${severity} ${subject}: ${message}`);
}

/** A cluster of which nothing is wrong. */
export function snapshotWith(cluster: Partial<ClusterObservation> = {}, changes: Partial<Snapshot> = {}): Snapshot {
  const identity = fakeIdentity();
  const wanted = {
    server: 'https://127.0.0.1:6443',
    ca: identity.ca.certificate,
    certificate: identity.certificates.admin.certificate,
    key: identity.certificates.admin.key,
  };
  return {
    clusterName: SPEC.name,
    nowMs: NOW_MS,
    machine: {
      engine: {
        version: '29.0.0',
        apiVersion: '1.52',
        operatingSystem: 'Debian',
        architecture: 'x86_64',
        cgroupVersion: 2,
        dataRoot: '/var/lib/docker',
        storageDriver: 'overlay2',
        kernelVersion: '6.12',
        cpus: 4,
        memoryBytes: 2 ** 34,
        hasContainerdImageStore: false,
        isRootless: false,
      },
      freeDiskBytes: 2 ** 36,
      inotifyLimits: { maxUserInstances: 512, maxUserWatches: 524_288 },
    },
    foreseen: {
      drift: [],
      notices: [],
      refusal: undefined,
      networks: { subnet: '172.30.0.0/24', inside: ['10.244.0.0/16', '10.96.0.0/16'] },
    },
    cluster: {
      parts: ['control-plane', 'agent', 'dns', 'ingress', 'object-store', 'ports'].map((component) =>
        partWith({ component }),
      ),
      routes: ['192.168.1.0/24', '172.30.0.0/24'],
      identity,
      kubeconfig: { found: wanted, wanted },
      node: {
        freeDiskBytes: 2 ** 36,
        inotifyLimits: { maxUserInstances: 512, maxUserWatches: 524_288 },
        canWatchFiles: true,
        clock: { nodeMs: NOW_MS, hostMs: NOW_MS },
        resolves: { cluster: true, engine: true },
      },
      mounts: [],
      published: [],
      world: worldOf({}),
      ...cluster,
    },
    ...changes,
  };
}

export function partWith(changes: Partial<ClusterObservation['parts'][number]>): ClusterObservation['parts'][number] {
  const { component = 'dns' } = changes;
  return {
    component,
    containerName: contextName(`dev-${component}`),
    state: 'running',
    exitCode: 0,
    error: '',
    problem: undefined,
    startedMs: undefined,
    lastLine: undefined,
    ...changes,
  };
}

/** What is wrong, one line each. */
export function findings(snapshot: Snapshot): readonly string[] {
  return diagnose(snapshot)
    .filter(({ severity }) => severity !== 'ok')
    .map(({ severity, subject, message }) => `${severity} ${subject}: ${message}`);
}
