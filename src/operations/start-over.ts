/** Gives the control plane its golden copy while it is stopped: for a datastore that cannot be brought back by requests. */
import { waitUntilReady } from '../engine/wait.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { containerName, type Component } from '../model/names.ts';
import type { ContainerSummary, Ports } from '../model/ports.ts';
import type { Probe, Probed } from '../model/resources.ts';
import { accessOf, componentOf, findContainers, hostPortOf, readIdentity, type ClusterAccess } from './access.ts';
import { inPhase } from './phase.ts';

/** Read and removed by the control plane as it starts; what is in it does not matter. */
const START_OVER_PATH = '/var/lib/etcd/start-over';

/** Its datastore is replaced: nothing of it has to be brought to an end. */
const STOP_TIMEOUT_S = 2;

const READY_MS = 60_000;

type Waiting = {
  readonly ports: Ports;
  readonly emit: Emit;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

/** A cluster whose control plane need not run, for what is done to it from outside. */
export async function accessStopped(clusterName: string, { runtime }: Ports): Promise<ClusterAccess> {
  const [containers, identity] = await Promise.all([
    findContainers(runtime, clusterName),
    readIdentity(runtime, clusterName),
  ]);
  const isThere = hostPortOf(containers, 'control-plane', 6443) !== undefined;
  if (isThere && identity !== undefined) return accessOf(clusterName, containers, identity);
  throw new SandbarError('CLUSTER_NOT_RUNNING', `the control plane of cluster "${clusterName}" is missing`, {
    hint: 'sandbar up makes it anew',
  });
}

/** Restarts the control plane from its golden copy; returns when it answers. */
export async function startOver(access: ClusterAccess, waiting: Waiting): Promise<void> {
  const { runtime } = waiting.ports;
  const name = containerName(access.name, 'control-plane');
  await inPhase('datastore', 'starting over', waiting, async () => {
    // Stopped first: what is interrupted in between starts over with the next command, and never on its own.
    await runtime.stopContainer(name, { timeoutS: STOP_TIMEOUT_S });
    await runtime.writeFile(name, { path: START_OVER_PATH, mode: 0o600, content: 'golden' });
    await runtime.startContainer(name);
    await waitFor('control-plane', { kind: 'api', path: '/readyz', timeoutMs: READY_MS }, access, waiting);
    return { result: undefined, text: 'the control plane is back' };
  });
}

/** Has a part run that is stopped or frozen, until it does its work; a part that is missing stays so. */
export async function wake(
  component: 'agent' | 'object-store',
  access: ClusterAccess,
  waiting: Waiting,
): Promise<ContainerSummary | undefined> {
  const container = componentOf(access.containers, component);
  if (container === undefined || container.state === 'running') return container;
  const { runtime } = waiting.ports;
  await (container.state === 'paused' ? runtime.unpauseContainer(container.id) : runtime.startContainer(container.id));
  await waitFor(component, wakeProbe(component, access), access, waiting);
  return container;
}

function wakeProbe(component: 'agent' | 'object-store', { name, containers }: ClusterAccess): Probe {
  const timeoutMs = READY_MS;
  if (component === 'agent') {
    return {
      kind: 'exec',
      containerName: containerName(name, 'agent'),
      command: ['sandbar-images', 'list'],
      timeoutMs,
    };
  }
  const port = String(hostPortOf(containers, 'object-store', 9000) ?? 0);
  return { kind: 'http', url: `http://127.0.0.1:${port}/minio/health/ready`, acceptedStatuses: [200], timeoutMs };
}

async function waitFor(component: Component, probe: Probe, access: ClusterAccess, waiting: Waiting): Promise<void> {
  const { ports } = waiting;
  const cluster = ports.connectCluster(access.api);
  const waited: Probed = {
    id: `container/${component}`,
    owner: component,
    container: { name: containerName(access.name, component) },
    probes: [probe],
  };
  try {
    await waitUntilReady(waited, { ...ports, cluster }, waiting);
  } finally {
    cluster.close();
  }
}
