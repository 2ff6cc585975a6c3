/** What a published port can lead to: whether it is there, and whether it has the port that is meant. */
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import type { Cluster } from '../model/ports.ts';
import { TARGET_API_VERSIONS, formatTarget, type PortTarget, type PublishSpec } from '../model/published.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { missingObject } from './missing-object.ts';

type NamedPort = { readonly name?: string; readonly protocol?: string };
type ServicePort = NamedPort & { readonly port: number };
type ServiceSpec = { readonly type?: string; readonly ports?: readonly ServicePort[] };
type PodSpec = { readonly containers?: readonly { readonly ports?: readonly NamedPort[] }[] };

/** Refuses a target that is not there, or that lacks the port. */
export async function requireTarget(cluster: Cluster, { target, protocol }: PublishSpec): Promise<void> {
  const object = await findTarget(cluster, target);
  const { kind } = target;
  if (object === undefined) throw await missingObject(cluster, { ...target, apiVersion: TARGET_API_VERSIONS[kind] });
  if (kind === 'Service') requireServicePort(object['spec'] as ServiceSpec, { target, protocol });
  else requireContainerPort(podSpecOf(kind, object), { target, protocol });
}

export async function findTarget(
  cluster: Cluster,
  { kind, namespace, name }: PortTarget,
): Promise<KubernetesObject | undefined> {
  const objects = await cluster.list({ apiVersion: TARGET_API_VERSIONS[kind], kind }, { namespace });
  return objects.find(({ metadata }) => metadata.name === name);
}

type Meant = Pick<PublishSpec, 'target' | 'protocol'>;

function requireServicePort({ type, ports = [] }: ServiceSpec, { target, protocol }: Meant): void {
  const service = formatTarget({ ...target, port: '' }).replace(/:$/, '');
  if (type === 'ExternalName') {
    throw new SandbarError('USAGE', `${service} is only another name of a host outside`, {
      hint: 'publish a Service with an address of its own',
    });
  }
  const meant = ports.filter(({ port, name }) => String(port) === target.port || name === target.port);
  if (meant.some((port) => protocolOf(port) === protocol)) return;
  const [other] = meant;
  if (other !== undefined) {
    const suffix = protocolOf(other).toLowerCase();
    throw new SandbarError('NOT_FOUND', `port ${target.port} of ${service} is of ${protocolOf(other)}`, {
      hint: `write ${formatTarget(target)}/${suffix}`,
    });
  }
  const known = ports.map((port) => `${port.name === undefined ? '' : `${port.name} = `}${formatServicePort(port)}`);
  const nearest = findNearest(
    target.port,
    ports.flatMap(({ name }) => name ?? []),
  );
  throw new SandbarError('NOT_FOUND', `${service} has no port ${target.port}`, {
    hint: nearest === undefined ? `it has ${known.join(', ') || 'none'}` : `did you mean ${service}:${nearest}?`,
  });
}

/** Containers need not say on which ports they listen: any number will do, and only a name must be there. */
function requireContainerPort({ containers = [] }: PodSpec, { target, protocol }: Meant): void {
  if (/^\d+$/.test(target.port)) return;
  const ports = containers.flatMap((container) => container.ports ?? []);
  const names = ports.filter((port) => protocolOf(port) === protocol).flatMap(({ name }) => name ?? []);
  if (names.includes(target.port)) return;
  const nearest = findNearest(target.port, names);
  const place = formatTarget({ ...target, port: '' }).replace(/:$/, '');
  const known = names.length === 0 ? `no container there names a port of ${protocol}: give its number` : undefined;
  throw new SandbarError('NOT_FOUND', `${place} has no port named ${target.port}`, {
    hint: known ?? (nearest === undefined ? `it has ${names.join(', ')}` : `did you mean ${place}:${nearest}?`),
  });
}

function podSpecOf(kind: PortTarget['kind'], object: KubernetesObject): PodSpec {
  const spec = object['spec'] as (PodSpec & { readonly template?: { readonly spec?: PodSpec } }) | undefined;
  return (kind === 'Pod' ? spec : spec?.template?.spec) ?? {};
}

function protocolOf({ protocol = 'TCP' }: NamedPort): string {
  return protocol;
}

function formatServicePort(port: ServicePort): string {
  const protocol = protocolOf(port);
  return protocol === 'TCP' ? String(port.port) : `${String(port.port)}/${protocol.toLowerCase()}`;
}
