/** The registry that clusters share, what the node knows of it, and what tools find of it in the cluster. */
import { attachmentId, ENGINE_NETWORK, HOST_HOSTNAME, LABELS, networkName, SYSTEM_NAMESPACE } from '../model/names.ts';
import type {
  AttachmentResource,
  ContainerFile,
  ContainerResource,
  KubernetesObject,
  Resource,
  VolumeResource,
} from '../model/resources.ts';
import type { ClusterSpec, MirrorSpec } from '../model/spec.ts';
import { addressesIn, type ComponentContext, type SettledRegistry } from './context.ts';
import { textFile } from './files.ts';

/** Where the registry listens in its container: for images that were pushed, and for copies of other registries'. */
export const REGISTRY_PORTS = { images: 5000, caches: 5001 } as const;

/** How pods reach it. */
export const REGISTRY_SERVICE = `registry.${SYSTEM_NAMESPACE}.svc.cluster.local:${String(REGISTRY_PORTS.images)}`;

/** Where containerd looks for what it is told of a registry, and where the registry keeps what it is told of another. */
const HOSTS_DIRECTORY = '/etc/containerd/certs.d';
const SETTINGS_DIRECTORY = '/var/lib/registry/settings';

/** What tools look for, as agreed on in KEP-1755. */
export const HOSTING = { namespace: 'kube-public', name: 'local-registry-hosting' } as const;

/** Name of the ConfigMap that holds what the node was told of registries. */
const HOSTS = { namespace: SYSTEM_NAMESPACE, name: 'registry-hosts' } as const;

/** Its container and volume belong to no cluster; to this one belongs that it is on its network. */
export function registry(
  context: ComponentContext,
): readonly (VolumeResource | ContainerResource | AttachmentResource)[] {
  const { registry: settled, imageRefs, spec, subnet } = context;
  if (settled === undefined) return [];
  const { name, port } = settled;
  const volume: VolumeResource = {
    kind: 'volume',
    id: 'volume/registry',
    owner: 'registry',
    dependsOn: [],
    name,
    labels: { [LABELS.port]: String(port) },
    holds: 'the images that were pushed, and copies of those that were pulled',
  };
  const container: ContainerResource = {
    kind: 'container',
    id: 'container/registry',
    owner: 'registry',
    dependsOn: [volume.id],
    container: {
      name,
      hostname: name,
      imageRef: imageRefs.registry,
      networkName: ENGINE_NETWORK,
      address: '',
      ports: [{ hostPort: port, containerPort: REGISTRY_PORTS.images }],
      volumes: [{ volumeName: name, path: '/var/lib/registry' }],
      binds: [],
      tmpfs: ['/run', '/tmp'],
      hasReadOnlyRoot: true,
      privileges: { level: 'none', capabilities: [] },
      extraHosts: [{ host: HOST_HOSTNAME, address: 'host-gateway' }],
      stopTimeoutS: 5,
    },
    files: [],
    // Nothing of a cluster waits for it.
    probes: [],
  };
  const attach = (network: string, address: string, needs: readonly string[]): AttachmentResource => ({
    kind: 'attachment',
    id: attachmentId(network),
    owner: 'registry',
    dependsOn: [...needs, container.id],
    containerName: name,
    networkName: network,
    address,
  });
  // A container that is made anew comes back on the networks of the other clusters too.
  const others = Object.entries(settled.otherNetworks).map(([network, address]) => attach(network, address, []));
  const own = attach(networkName(spec.name), addressesIn(subnet).registry, ['network']);
  // Its own cluster's comes last, as a sign that it is on all of them.
  return [volume, container, ...others, { ...own, dependsOn: [...own.dependsOn, ...others.map(({ id }) => id)] }];
}

/** Registry host → containerd's own format for the hosts that serve its images. */
export type RegistryHosts = Readonly<Record<string, string>>;

/** All that the node is told of registries. A registry itself stays the last resort of its images. */
export function registryHosts(context: Pick<ComponentContext, 'spec' | 'subnet' | 'registry'>): RegistryHosts {
  const { spec, registry: settled } = context;
  const { registry: address } = addressesIn(context.subnet);
  const url = (port: number): string => `http://${address}:${String(port)}`;
  const cached = settled === undefined ? [] : (spec.registry?.mirrors ?? []);
  const hosts = new Set([...cached, ...spec.mirrors.map(({ registry: host }) => host)]);
  const own = settled === undefined ? [] : [`localhost:${String(settled.port)}`, REGISTRY_SERVICE];
  return Object.fromEntries([
    // Alone, so that of an image that was not pushed it is said that it is not found.
    ...own.map((host) => [host, `server = "${url(REGISTRY_PORTS.images)}"\n`]),
    ...[...hosts].map((host) => [
      host,
      formatHostsToml([...(cached.includes(host) ? [url(REGISTRY_PORTS.caches)] : []), ...endpointsOf(spec, host)]),
    ]),
  ]) as RegistryHosts;
}

/** The same as files. containerd reads them at every pull: a change needs no new node. */
export function registryHostFiles(hosts: RegistryHosts): readonly ContainerFile[] {
  return Object.entries(hosts).map(([host, content]) => ({
    ...textFile(`${HOSTS_DIRECTORY}/${host}/hosts.toml`, content),
    mode: 0o644,
    isInert: true,
  }));
}

/** What the node was told of registries, as the cluster keeps it; none of a cluster that keeps nothing of it. */
export function readRegistryHosts(object: KubernetesObject | undefined): RegistryHosts {
  const data = object?.['data'] as Readonly<Record<string, string>> | undefined;
  try {
    return JSON.parse(data?.['hosts.json'] ?? '{}') as RegistryHosts;
  } catch {
    // Edited by hand: it is written anew.
    return {};
  }
}

export function isRegistryHosts({ id }: Pick<Resource, 'id'>): boolean {
  return id === `object/ConfigMap/${HOSTS.namespace}/${HOSTS.name}`;
}

/** What the registry is told of those that it keeps copies of. */
export function cacheSettings(context: Pick<ComponentContext, 'spec' | 'registry'>): readonly ContainerFile[] {
  const { spec, registry: settled } = context;
  if (settled === undefined) return [];
  return (spec.registry?.mirrors ?? []).map((host) => ({
    path: `${SETTINGS_DIRECTORY}/${host}.json`,
    mode: 0o600,
    content: JSON.stringify({
      remoteURL: endpointsOf(spec, host)[0] ?? remoteUrlOf(host),
      caCertificates: spec.caCertificates.map(({ content }) => content),
      proxy: spec.proxy,
    }),
  }));
}

/** What wires the registry to the cluster, and tells tools of it. */
export function registryObjects(context: ComponentContext): readonly KubernetesObject[] {
  const { registry: settled } = context;
  const hosts: KubernetesObject = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: HOSTS,
    data: { 'hosts.json': JSON.stringify(registryHosts(context)) },
  };
  return settled === undefined ? [hosts] : [hosts, hostingObject(settled)];
}

function hostingObject({ port }: SettledRegistry): KubernetesObject {
  const host = `localhost:${String(port)}`;
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: HOSTING,
    data: {
      'localRegistryHosting.v1': [
        `host: "${host}"`,
        `hostFromContainerRuntime: "${host}"`,
        `hostFromClusterNetwork: "${REGISTRY_SERVICE}"`,
        'help: "sandbar registry --help"',
        '',
      ].join('\n'),
    },
  };
}

/** A mirror that is named for a registry is asked in its place. */
function endpointsOf({ mirrors }: Pick<ClusterSpec, 'mirrors'>, host: string): readonly string[] {
  return mirrors.find(({ registry: of }: MirrorSpec) => of === host)?.endpoints ?? [];
}

/** Docker Hub's name in image names is not its API's. */
function remoteUrlOf(host: string): string {
  return `https://${host === 'docker.io' ? 'registry-1.docker.io' : host}`;
}

function formatHostsToml(endpoints: readonly string[]): string {
  return endpoints
    .map((endpoint) => `[host.${JSON.stringify(endpoint)}]\n  capabilities = ["pull", "resolve"]\n`)
    .join('\n');
}
