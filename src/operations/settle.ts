/** Settles what a spec leaves open: the subnet and the host's ports. What a cluster already has, it keeps. */
import { addressesIn, type SettledPorts, type SettledRegistry } from '../components/context.ts';
import { chooseSubnet, overlaps, parseCidr } from '../model/cidr.ts';
import { SandbarError } from '../model/errors.ts';
import type { DockerObservation, RegistryObservation } from '../engine/observe.ts';
import { LABELS, networkName } from '../model/names.ts';
import type { Host, NetworkSummary } from '../model/ports.ts';
import type { ClusterSpec } from '../model/spec.ts';

type PortName = keyof ClusterSpec['ports'];

/** Which container publishes a port, and where it listens inside. */
const PUBLISHERS: Readonly<
  Record<PortName, { readonly component: string; readonly containerPort: number; readonly key: string }>
> = {
  api: { component: 'control-plane', containerPort: 6443, key: 'ports.api' },
  http: { component: 'ingress', containerPort: 80, key: 'ports.http' },
  https: { component: 'ingress', containerPort: 443, key: 'ports.https' },
  objectStore: { component: 'object-store', containerPort: 9000, key: 'ports.objectStore' },
  objectStoreConsole: { component: 'object-store', containerPort: 9001, key: 'ports.objectStoreConsole' },
};

/** Where the next free port is looked for when a privileged default is taken: 80 → 8080, 443 → 8443. */
const SUBSTITUTES: Readonly<Record<number, number>> = { 80: 8080, 443: 8443 };

export async function settleSubnet(spec: ClusterSpec, docker: DockerObservation, host: Host): Promise<string> {
  const own = docker.networks.find((network) => network.labels[LABELS.cluster] === spec.name);
  const [ownSubnet] = own?.subnets ?? [];
  const wished = spec.network.subnet;
  if (ownSubnet !== undefined && (wished === undefined || wished === ownSubnet)) return ownSubnet;
  const foreign = docker.networks.filter((network) => network !== own);
  const inside = [spec.network.podSubnet, spec.network.serviceSubnet];
  if (wished !== undefined) {
    const clash = foreign.find((network) => network.subnets.some((subnet) => isClash(wished, subnet)));
    if (clash !== undefined) {
      throw new SandbarError(
        'SUBNET_IN_USE',
        `subnet ${wished} overlaps with ${clash.subnets.join(', ')} of Docker network ${clash.name}`,
        {
          hint: 'set network.subnet in sandbar.yaml to a free one, or leave it out: a free one is chosen then',
        },
      );
    }
    return wished;
  }
  const taken = [...foreign.flatMap((network) => network.subnets), ...(await host.listRoutes()), ...inside];
  const chosen = chooseSubnet(taken);
  if (chosen === undefined) {
    throw new SandbarError('SUBNET_IN_USE', 'no free /24 is left in 172.30.0.0/16', {
      hint: 'set network.subnet in sandbar.yaml, e.g. 10.201.0.0/24',
    });
  }
  return chosen;
}

/**
 * Host ports for everything that is enabled. A port that the cluster has stays; a taken one is replaced by the next
 * free one, or is an error when the user named it. `notices` say where a port is not the usual one.
 */
export async function settlePorts(
  spec: ClusterSpec,
  docker: DockerObservation,
  host: Host,
): Promise<{ readonly ports: SettledPorts; readonly notices: readonly string[] }> {
  const settled: Partial<Record<PortName, number>> = {};
  const notices: string[] = [];
  for (const [name, publisher] of Object.entries(PUBLISHERS) as [PortName, (typeof PUBLISHERS)[PortName]][]) {
    const wish = spec.ports[name];
    const container = docker.containers.find((found) => found.labels[LABELS.component] === publisher.component);
    const current = container?.ports.find((port) => port.containerPort === publisher.containerPort)?.hostPort;
    const isHeld = container?.state === 'running' || container?.state === 'paused';
    const chosen = new Set(Object.values(settled));
    const isFree = async (port: number): Promise<boolean> => !chosen.has(port) && (await host.isPortFree(port));
    if (current !== undefined && (!wish.isFixed || wish.port === current) && (isHeld || (await isFree(current)))) {
      settled[name] = current;
      continue;
    }
    if (!isEnabled(spec, name) || (await isFree(wish.port))) {
      settled[name] = wish.port;
      continue;
    }
    const owner = (await host.findPortOwner(wish.port)) ?? 'another program';
    if (wish.isFixed) {
      throw new SandbarError('PORT_IN_USE', `port ${String(wish.port)} is used by ${owner}`, {
        hint: `stop it, or set ${publisher.key} in sandbar.yaml`,
      });
    }
    settled[name] = await nextFree(SUBSTITUTES[wish.port] ?? wish.port + 1, isFree);
    notices.push(
      `port ${String(wish.port)} is used by ${owner}: ${publisher.component} is on ${String(settled[name])}`,
    );
  }
  return { ports: settled as SettledPorts, notices };
}

/**
 * The registry's port on the host: the one that the user names, that it has, that it had first, 5001, or the next free
 * one. Image names hold it, so that it changes only where it must.
 */
export async function settleRegistry(
  { registry, name }: Pick<ClusterSpec, 'registry' | 'name'>,
  {
    observation,
    networks,
    taken,
  }: {
    readonly observation: RegistryObservation;
    readonly networks: readonly NetworkSummary[];
    /** Ports that the cluster takes itself. */
    readonly taken: readonly number[];
  },
  host: Host,
): Promise<{ readonly registry: SettledRegistry | undefined; readonly notices: readonly string[] }> {
  if (registry === undefined) return { registry: undefined, notices: [] };
  const { container, volume, others } = observation;
  const otherNetworks = otherNetworksOf(registry.name, { observation, networks, ownNetwork: networkName(name) });
  const settled = (port: number, notices: readonly string[] = []) => ({
    registry: { name: registry.name, port, otherNetworks },
    notices,
  });
  const current = container?.ports[0]?.hostPort;
  const isHeld = container?.state === 'running' || container?.state === 'paused';
  const isFree = async (port: number): Promise<boolean> => !taken.includes(port) && (await host.isPortFree(port));
  const { port: wished, isFixed } = registry.port;
  if (current !== undefined && (isHeld || (await isFree(current)))) {
    if (!isFixed || wished === current) return settled(current);
    const clusters = networks.flatMap((network) =>
      otherNetworks[network.name] === undefined ? [] : (network.labels[LABELS.cluster] ?? []),
    );
    if (clusters.length > 0) {
      const knowing = `${clusters.length === 1 ? 'cluster' : 'clusters'} ${clusters.sort().join(', ')}`;
      throw new SandbarError(
        'CONFLICT',
        `registry ${registry.name} is known to ${knowing} on port ${String(current)}, not ${String(wished)}`,
        { hint: `leave registry.port out, or give this cluster a registry of its own with registry.name` },
      );
    }
  }
  if (!isFixed) {
    const first = Number(volume?.labels[LABELS.port]);
    if (first > 0 && (await isFree(first))) return settled(first);
  }
  const keeper = others.volumes.find(({ labels }) => labels[LABELS.port] === String(wished));
  if ((isFixed || keeper === undefined) && (await isFree(wished))) return settled(wished);
  const owner =
    (await host.findPortOwner(wished)) ?? (keeper === undefined ? 'another program' : `registry ${keeper.name}`);
  if (isFixed) {
    throw new SandbarError('PORT_IN_USE', `port ${String(wished)} is used by ${owner}`, {
      hint: 'stop it, or set registry.port in sandbar.yaml',
    });
  }
  // Another registry may be about to start on the port that its volume names.
  const kept = others.volumes.map(({ labels }) => Number(labels[LABELS.port]));
  const chosen = await nextFree(wished + 1, async (port) => !kept.includes(port) && (await isFree(port)));
  return settled(chosen, [`port ${String(wished)} is used by ${owner}: the registry is on ${String(chosen)}`]);
}

/**
 * Addresses of a registry on the networks of other clusters: those that it is on and, unless it is known to be on all,
 * those that were made for it. It joins the network of the cluster that makes it last, so one that is on that has the
 * others too; a cluster that has given it up meanwhile is then left alone.
 */
export function otherNetworksOf(
  registryName: string,
  {
    observation: { container, others },
    networks,
    ownNetwork,
  }: {
    readonly observation: Pick<RegistryObservation, 'container' | 'others'>;
    readonly networks: readonly NetworkSummary[];
    readonly ownNetwork: string;
  },
): SettledRegistry['otherNetworks'] {
  const attached = container?.addresses ?? {};
  const isMadeFor = ({ name, labels }: NetworkSummary): boolean =>
    attached[ownNetwork] === undefined &&
    labels[LABELS.registry] === registryName &&
    others.containers.every(({ addresses }) => addresses[name] === undefined);
  return Object.fromEntries(
    networks
      .filter(({ name, labels }) => name !== ownNetwork && labels[LABELS.cluster] !== undefined)
      .flatMap((network) => {
        const [subnet] = network.subnets;
        const address =
          attached[network.name] ??
          (subnet !== undefined && isMadeFor(network) ? addressesIn(subnet).registry : undefined);
        return address === undefined ? [] : [[network.name, address]];
      }),
  );
}

function isEnabled(spec: ClusterSpec, name: PortName): boolean {
  if (name === 'http' || name === 'https') return spec.ingress.isEnabled;
  return name === 'api' || spec.objectStore.isEnabled;
}

async function nextFree(from: number, isFree: (port: number) => Promise<boolean>): Promise<number> {
  for (let port = from; port < from + 200; port += 1) {
    if (await isFree(port)) return port;
  }
  throw new SandbarError('PORT_IN_USE', `no free port between ${String(from)} and ${String(from + 199)}`, {
    hint: 'set ports in sandbar.yaml',
  });
}

function isClash(first: string, second: string): boolean {
  const [a, b] = [parseCidr(first), parseCidr(second)];
  return a !== undefined && b !== undefined && overlaps(a, b);
}
