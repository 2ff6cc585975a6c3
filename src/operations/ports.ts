/** `port add` and `port rm`: ports of this machine that lead to Services, workloads and pods. */
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { LABELS } from '../model/names.ts';
import type { Cluster, ContainerSummary, Host, Ports } from '../model/ports.ts';
import {
  HOST_PORTS_ANNOTATION,
  UNREACHABLE_FIX,
  formatHostPort,
  formatTarget,
  hashOfPortRecord,
  parseHostPorts,
  portRecordName,
  portRecordObject,
  type HostPort,
  type PortRecord,
  type PublishSpec,
} from '../model/published.ts';
import { accessCluster, componentOf, withCluster, withClusterLock, type ClusterAccess } from './access.ts';
import { UNREACHABLE, listPortRecords, listPortsThrough, type FoundRecord, type PortListing } from './port-list.ts';
import { requireTarget } from './port-targets.ts';

export type PortRequest = {
  readonly clusterName: string;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

export type PortDependencies = { readonly ports: Ports; readonly emit: Emit };

/** Between two looks at what the agent says. */
const PAUSE_MS = 20;
const ANSWER_MS = 10_000;
/** How far a free port is looked for, for the hint. */
const FREE_PORTS = 50;

export type PortAdded = {
  readonly record: PortRecord;
  /** `replaced`: the port led elsewhere before. */
  readonly change: 'added' | 'replaced' | 'unchanged';
};

/** Publishes; returns once the port is open. One that cannot be opened leaves nothing behind. */
export async function addPort(
  request: PortRequest & { readonly published: PublishSpec },
  dependencies: PortDependencies,
): Promise<PortAdded> {
  return withAccess(request, dependencies, async (cluster, access) => {
    const { published } = request;
    for (const component of ['agent', 'ports'] as const) requireRunning(component, access);
    await requireTarget(cluster, published);
    const present = await findRecord(cluster, published);
    const planned: PortRecord = { ...published, origin: present?.record.origin ?? 'command' };
    const isSame =
      present !== undefined && hashOfPortRecord(present.object) === hashOfPortRecord(portRecordObject(planned));
    const record: PortRecord = isSame ? planned : { ...planned, origin: 'command' };
    if (!isSame) await write(cluster, record, present);
    try {
      await requireOpen(record, await waitForAnswer(cluster, record, { ...request, ...dependencies }), {
        cluster,
        access,
        ports: dependencies.ports,
      });
    } catch (error) {
      if (!isSame) await restore(cluster, record, present);
      throw error;
    }
    return { record, change: isSame ? 'unchanged' : present === undefined ? 'added' : 'replaced' };
  });
}

export type PortsRemoved = { readonly removed: readonly PortRecord[] };

/** Takes ports away, with the connections through them; returns once nobody listens there any more, or says who does. */
export async function removePorts(
  request: PortRequest & { readonly chosen: readonly Pick<PublishSpec, 'hostPort' | 'protocol'>[] | 'all' },
  dependencies: PortDependencies,
): Promise<PortsRemoved> {
  return withAccess(request, dependencies, async (cluster) => {
    const { host, clock } = dependencies.ports;
    const present = await listPortRecords(cluster);
    const leaving = request.chosen === 'all' ? [...present] : [];
    for (const wanted of request.chosen === 'all' ? [] : request.chosen) {
      const found = present.find(({ object }) => object.metadata.name === portRecordName(wanted));
      if (found === undefined) throw unknownPort(wanted, present, await listPortsThrough(cluster, host));
      leaving.push(found);
    }
    for (const { object } of leaving) await cluster.remove(object);
    const deadline = clock.now() + (request.timeoutMs ?? ANSWER_MS);
    for (const { record, object } of leaving) {
      if (parseHostPorts(object)[0]?.state !== 'open') continue;
      while ((await host.isListening(record.hostPort, record.protocol)) === true) {
        if (clock.now() >= deadline) throw await stillOpen(record, host);
        await clock.sleep(PAUSE_MS, request.signal);
      }
    }
    return { removed: leaving.map(({ record }) => record) };
  });
}

async function withAccess<T>(
  { clusterName, signal }: PortRequest,
  { ports, emit }: PortDependencies,
  work: (cluster: Cluster, access: ClusterAccess) => Promise<T>,
): Promise<T> {
  return withClusterLock(clusterName, { host: ports.host, emit, signal }, async () => {
    const access = await accessCluster(ports.runtime, clusterName);
    return withCluster(access, ports, (cluster) => work(cluster, access));
  });
}

async function findRecord(
  cluster: Cluster,
  wanted: Pick<PublishSpec, 'hostPort' | 'protocol'>,
): Promise<FoundRecord | undefined> {
  return (await listPortRecords(cluster)).find(({ object }) => object.metadata.name === portRecordName(wanted));
}

/** What the agent said of another target would be taken for an answer. */
async function write(cluster: Cluster, record: PortRecord, present: FoundRecord | undefined): Promise<void> {
  const object = portRecordObject(record);
  if (present === undefined) return cluster.apply(object);
  const { labels } = object.metadata;
  await cluster.patch(object, {
    metadata: { labels, annotations: { [HOST_PORTS_ANNOTATION]: null } },
    data: object['data'],
  });
}

async function restore(cluster: Cluster, record: PortRecord, present: FoundRecord | undefined): Promise<void> {
  if (present === undefined) await cluster.remove(portRecordObject(record));
  else await write(cluster, present.record, present);
}

async function stillOpen({ hostPort, protocol }: PortRecord, host: Host): Promise<SandbarError> {
  const owner = protocol === 'TCP' ? await host.findPortOwner(hostPort) : undefined;
  return new SandbarError(
    'TIMED_OUT',
    `port ${formatHostPort({ hostPort, protocol })} is no longer published, but ${owner ?? 'something'} still listens there`,
    { hint: 'sandbar status shows what does not do its work, sandbar logs agent and sandbar logs ports what they say' },
  );
}

async function waitForAnswer(
  cluster: Cluster,
  record: PortRecord,
  { ports: { clock }, timeoutMs, signal }: PortRequest & PortDependencies,
): Promise<HostPort> {
  const deadline = clock.now() + (timeoutMs ?? ANSWER_MS);
  for (;;) {
    const found = await findRecord(cluster, record);
    const [answer] = found === undefined ? [] : parseHostPorts(found.object);
    if (answer !== undefined) return answer;
    if (clock.now() >= deadline) {
      throw new SandbarError('TIMED_OUT', `the agent does not say whether port ${formatHostPort(record)} is open`, {
        hint: 'sandbar status shows what does not do its work, sandbar logs agent what it says',
      });
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}

async function requireOpen(
  record: PortRecord,
  { state, detail = '' }: HostPort,
  context: { readonly cluster: Cluster; readonly access: ClusterAccess; readonly ports: Ports },
): Promise<void> {
  const { host } = context.ports;
  const port = formatHostPort(record);
  switch (state) {
    case 'open':
      if ((await host.isListening(record.hostPort, record.protocol)) !== false) return;
      throw new SandbarError('PORT_UNREACHABLE', `port ${port} is open for the engine, but not here: ${UNREACHABLE}`, {
        hint: UNREACHABLE_FIX,
      });
    case 'taken': {
      const owner = await findOwner(record, context);
      const free = await findFree(record, context);
      throw new SandbarError('PORT_IN_USE', `port ${port} is used by ${owner}`, {
        hint: `stop it, or take another: sandbar port add ${String(free)} ${formatTarget(record.target)}`,
      });
    }
    case 'waiting':
    case 'failed':
    case 'closed':
      throw new SandbarError('COMPONENT_FAILED', `port ${port} could not be opened: ${detail}`, {
        hint: 'sandbar status shows what does not do its work, sandbar logs ports what it says',
      });
  }
}

async function findOwner(
  { hostPort, protocol }: PortRecord,
  {
    cluster,
    access,
    ports: { host },
  }: { readonly cluster: Cluster; readonly access: ClusterAccess; readonly ports: Ports },
): Promise<string> {
  const own = access.containers.find((container) => container.ports.some((port) => port.hostPort === hostPort));
  if (own !== undefined && protocol === 'TCP') return `${componentNameOf(own)} of this cluster`;
  const balancer = (await listPortsThrough(cluster, host)).find(
    (listing) => listing.origin === 'load-balancer' && listing.hostPort === hostPort && listing.protocol === protocol,
  );
  if (balancer?.state === 'open') return `the LoadBalancer ${balancer.target} in namespace ${balancer.namespace}`;
  return (protocol === 'TCP' ? await host.findPortOwner(hostPort) : undefined) ?? 'another program';
}

async function findFree(
  { hostPort, protocol }: PortRecord,
  { ports: { host } }: { readonly ports: Ports },
): Promise<number> {
  const first = Math.max(hostPort + 1, 1024);
  for (let port = first; port < first + FREE_PORTS; port += 1) {
    if ((await host.isListening(port, protocol)) !== true) return port;
  }
  return first;
}

function requireRunning(component: 'agent' | 'ports', { name, containers }: ClusterAccess): void {
  const state = componentOf(containers, component)?.state;
  if (state === 'running') return;
  throw new SandbarError('CLUSTER_NOT_RUNNING', `${component} of cluster "${name}" is ${state ?? 'missing'}`, {
    hint: 'sandbar up starts what is stopped and repairs what is missing',
  });
}

function unknownPort(
  wanted: Pick<PublishSpec, 'hostPort' | 'protocol'>,
  present: readonly FoundRecord[],
  listings: readonly PortListing[],
): SandbarError {
  const balancer = listings.find(
    ({ origin, hostPort, protocol }) =>
      origin === 'load-balancer' && hostPort === wanted.hostPort && protocol === wanted.protocol,
  );
  if (balancer !== undefined) {
    const service = `${balancer.target.replace(/:\d+$/, '')} in namespace ${balancer.namespace}`;
    return new SandbarError('CONFLICT', `port ${formatHostPort(wanted)} is of the LoadBalancer ${service}`, {
      hint: 'it goes with the Service: delete that, or give it another type',
    });
  }
  const ports = present.map(({ record }) => formatHostPort(record));
  return new SandbarError('NOT_FOUND', `port ${formatHostPort(wanted)} is not published`, {
    hint: ports.length === 0 ? 'nothing is' : `there ${ports.length === 1 ? 'is' : 'are'} ${ports.join(', ')}`,
  });
}

function componentNameOf({ labels, name }: ContainerSummary): string {
  return labels[LABELS.component] ?? name;
}
