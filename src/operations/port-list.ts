/** `port ls`: every port of this machine that leads into a cluster, as it is wanted and as it is. */
import { SandbarError } from '../model/errors.ts';
import type { Identity } from '../model/identity.ts';
import { SYSTEM_NAMESPACE } from '../model/names.ts';
import type { Cluster, Host, Ports } from '../model/ports.ts';
import {
  HOST_PORTS_ANNOTATION,
  PORT_LABEL,
  formatTarget,
  parseHostPorts,
  parsePortRecord,
  type HostPort,
  type PortRecord,
} from '../model/published.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { accessCluster, openAccess, withCluster, type ClusterAccess } from './access.ts';
import { findTarget } from './port-targets.ts';

/** One line of `sandbar port ls`. */
export type PortListing = {
  /** Of 127.0.0.1; the wanted one where none is open. */
  readonly hostPort: number;
  readonly protocol: string;
  readonly namespace: string;
  /** `service/web:80`. */
  readonly target: string;
  readonly origin: PortRecord['origin'] | 'load-balancer';
  /**
   * `unreachable`: it is open in the engine's network, which is not this machine's. `lost`: what it leads to is not
   * there. The others are the agent's own words.
   */
  readonly state: HostPort['state'] | 'unreachable' | 'lost';
  readonly detail: string;
  /** Of a Service of type LoadBalancer: its own address, where it has one. */
  readonly address: string | undefined;
};

type LoadBalancer = KubernetesObject & {
  readonly spec: { readonly type?: string };
  readonly status?: { readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string }[] } };
};

export async function listPorts(clusterName: string, ports: Ports): Promise<readonly PortListing[]> {
  const access = await accessCluster(ports.runtime, clusterName);
  return withCluster(access, ports, (cluster) => listPortsThrough(cluster, ports.host));
}

/** The same of a cluster that was found already; none where its API cannot be asked. */
export async function observePublished(
  {
    clusterName,
    containers,
    identity,
  }: Pick<ClusterAccess, 'containers'> & { readonly clusterName: string; readonly identity: Identity | undefined },
  ports: Ports,
): Promise<readonly PortListing[]> {
  try {
    const access = openAccess(clusterName, containers, identity);
    return await withCluster(access, ports, (cluster) => listPortsThrough(cluster, ports.host));
  } catch (error) {
    if (error instanceof SandbarError) return [];
    throw error;
  }
}

/** The same through a connection that is open. */
export async function listPortsThrough(cluster: Cluster, host: Host): Promise<readonly PortListing[]> {
  const [records, services] = await Promise.all([
    listPortRecords(cluster),
    cluster.list({ apiVersion: 'v1', kind: 'Service' }, {}),
  ]);
  const listings = [
    ...(await Promise.all(records.map((found) => describeRecord(found, cluster)))),
    ...services.flatMap((service) => describeService(service as LoadBalancer)),
  ];
  const seen = await Promise.all(listings.map((listing) => seenFrom(host, listing)));
  return seen.toSorted((a, b) => a.hostPort - b.hostPort || (a.protocol < b.protocol ? -1 : 1));
}

export type FoundRecord = { readonly record: PortRecord; readonly object: KubernetesObject };

export async function listPortRecords(cluster: Cluster): Promise<readonly FoundRecord[]> {
  const objects = await cluster.list(
    { apiVersion: 'v1', kind: 'ConfigMap' },
    { labelSelector: PORT_LABEL, namespace: SYSTEM_NAMESPACE },
  );
  return objects.flatMap((object) => {
    const record = parsePortRecord(object);
    return record === undefined ? [] : [{ record, object }];
  });
}

async function describeRecord({ record, object }: FoundRecord, cluster: Cluster): Promise<PortListing> {
  const { hostPort, protocol, target, origin } = record;
  const [found] = parseHostPorts(object);
  const isLost = found?.state === 'open' && (await findTarget(cluster, target)) === undefined;
  return {
    hostPort,
    protocol,
    namespace: target.namespace,
    target: formatTarget({ ...target, namespace: 'default' }),
    origin,
    state: isLost ? 'lost' : (found?.state ?? 'waiting'),
    detail: isLost ? 'what it leads to is not there' : (found?.detail ?? ''),
    address: undefined,
  };
}

/** A Service that was a LoadBalancer keeps nothing of it. */
function describeService(service: LoadBalancer): readonly PortListing[] {
  const { metadata, spec, status } = service;
  if (spec.type !== 'LoadBalancer' || metadata.annotations?.[HOST_PORTS_ANNOTATION] === undefined) return [];
  const ip = status?.loadBalancer?.ingress?.[0]?.ip;
  return parseHostPorts(service).map(({ port, protocol, hostPort, state, detail }) => ({
    hostPort: hostPort ?? port,
    protocol,
    namespace: metadata.namespace ?? 'default',
    target: `service/${metadata.name}:${String(port)}`,
    origin: 'load-balancer',
    state,
    detail: detail ?? '',
    address: ip === undefined ? undefined : `${ip}:${String(port)}`,
  }));
}

/** Whether this machine has what the engine's has: where they are not the same, nothing that is opened there helps. */
async function seenFrom(host: Host, listing: PortListing): Promise<PortListing> {
  const { state, hostPort, protocol } = listing;
  if (state !== 'open' || (protocol !== 'TCP' && protocol !== 'UDP')) return listing;
  const isSeen = await host.isListening(hostPort, protocol);
  return isSeen === false ? { ...listing, state: 'unreachable', detail: UNREACHABLE } : listing;
}

export const UNREACHABLE = "the engine's host network is not this machine's";
