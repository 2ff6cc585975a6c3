/** Ports of this machine that lead to Services, workloads and pods: the wishes, their records, what became of them. */
import { hashOf } from './hash.ts';
import { SYSTEM_NAMESPACE } from './names.ts';
import type { KubernetesObject } from './resources.ts';

/** Kinds that a port can lead to, as Kubernetes spells them, with the words that kubectl knows them by. */
export const TARGET_KINDS = {
  Service: ['service', 'services', 'svc'],
  Deployment: ['deployment', 'deployments', 'deploy'],
  StatefulSet: ['statefulset', 'statefulsets', 'sts'],
  DaemonSet: ['daemonset', 'daemonsets', 'ds'],
  Pod: ['pod', 'pods', 'po'],
} as const;
export type TargetKind = keyof typeof TARGET_KINDS;

export const TARGET_API_VERSIONS: Readonly<Record<TargetKind, string>> = {
  Service: 'v1',
  Deployment: 'apps/v1',
  StatefulSet: 'apps/v1',
  DaemonSet: 'apps/v1',
  Pod: 'v1',
};

export type PortProtocol = 'TCP' | 'UDP';

export type PortTarget = {
  readonly namespace: string;
  readonly kind: TargetKind;
  readonly name: string;
  /** A number, or the name that the Service or the container gives it. */
  readonly port: string;
};

/** A port of 127.0.0.1 and what it leads to. */
export type PublishSpec = {
  readonly hostPort: number;
  readonly protocol: PortProtocol;
  readonly target: PortTarget;
};

/** One ConfigMap in `sandbar-system`, which the agent follows. A port of the host has at most one. */
export type PortRecord = PublishSpec & {
  /** `file`: declared in `sandbar.yaml`, and gone when it no longer is. `command`: made by `sandbar port add`. */
  readonly origin: 'file' | 'command';
};

/** Label on the ConfigMaps; its value is the origin. */
export const PORT_LABEL = 'sandbar.dev/port';

/** On a Service of type LoadBalancer and on a record: what became of its ports on the host. The agent writes it. */
export const HOST_PORTS_ANNOTATION = 'sandbar.dev/host-ports';

/** One entry of that annotation. */
export type HostPort = {
  /** Of the Service; of a record the wanted one. */
  readonly port: number;
  readonly protocol: string;
  /** Port of 127.0.0.1; the last one where it is not open now. */
  readonly hostPort?: number;
  /** `closed`: not to be opened, the detail says why. `waiting`: nobody is there who could open it. */
  readonly state: 'open' | 'taken' | 'failed' | 'closed' | 'waiting';
  readonly detail?: string;
};

/** What helps where the engine's host network is not this machine's. */
export const UNREACHABLE_FIX =
  'in Docker Desktop turn on Settings, Resources, Network, Enable host networking; with a rootless or a remote engine use sandbar kubectl port-forward';

/** `8080`, `53/udp`: as it is written and shown. */
export function formatHostPort({ hostPort, protocol }: Pick<PublishSpec, 'hostPort' | 'protocol'>): string {
  return protocol === 'TCP' ? String(hostPort) : `${String(hostPort)}/${protocol.toLowerCase()}`;
}

/** `service/web:80`; the namespace only where it is not the usual one. */
export function formatTarget({ namespace, kind, name, port }: PortTarget): string {
  return `${namespace === 'default' ? '' : `${namespace}/`}${kind.toLowerCase()}/${name}:${port}`;
}

export function portRecordName({ hostPort, protocol }: Pick<PublishSpec, 'hostPort' | 'protocol'>): string {
  return `port-${String(hostPort)}-${protocol.toLowerCase()}`;
}

/** The ConfigMap of a record. */
export function portRecordObject(record: PortRecord): KubernetesObject {
  const { hostPort, protocol, target, origin } = record;
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: portRecordName(record), namespace: SYSTEM_NAMESPACE, labels: { [PORT_LABEL]: origin } },
    data: {
      port: String(hostPort),
      protocol,
      namespace: target.namespace,
      kind: target.kind,
      name: target.name,
      targetPort: target.port,
    },
  };
}

/** The record of a ConfigMap; undefined for one that holds none. */
export function parsePortRecord(object: KubernetesObject): PortRecord | undefined {
  const data = object['data'] as Readonly<Record<string, string>> | undefined;
  const origin = object.metadata.labels?.[PORT_LABEL];
  const hostPort = Number(data?.['port']);
  const kind = data?.['kind'] ?? '';
  if (data === undefined || origin === undefined || !(hostPort > 0) || !Object.hasOwn(TARGET_KINDS, kind)) {
    return undefined;
  }
  return {
    hostPort,
    protocol: data['protocol'] === 'UDP' ? 'UDP' : 'TCP',
    target: {
      namespace: data['namespace'] ?? 'default',
      kind: kind as TargetKind,
      name: data['name'] ?? '',
      port: data['targetPort'] ?? '',
    },
    origin: origin === 'file' ? 'file' : 'command',
  };
}

/** Of all that a record says, whoever has written it. */
export function hashOfPortRecord({ metadata: { labels }, ...object }: KubernetesObject): string {
  return hashOf([labels?.[PORT_LABEL], Object.entries(object['data'] ?? {}).toSorted()]);
}

/** What the agent says of an object's ports; nothing where somebody has edited it into something else. */
export function parseHostPorts({ metadata }: KubernetesObject): readonly HostPort[] {
  try {
    const entries: unknown = JSON.parse(metadata.annotations?.[HOST_PORTS_ANNOTATION] ?? '[]');
    return Array.isArray(entries) ? entries.filter(isHostPort) : [];
  } catch {
    return [];
  }
}

function isHostPort(entry: unknown): entry is HostPort {
  const { port, protocol, state } = (entry ?? {}) as Partial<HostPort>;
  return typeof port === 'number' && typeof protocol === 'string' && typeof state === 'string';
}
