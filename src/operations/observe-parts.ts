/** What doctor sees of a cluster from outside of its API: containers, the node's machine, mounts. */
import type { Mount, NodeObservation } from '../diagnosis/diagnose.ts';
import { readyzProblem, type Part } from '../diagnosis/parts.ts';
import { SandbarError } from '../model/errors.ts';
import type { Identity } from '../model/identity.ts';
import { containerName, LABELS } from '../model/names.ts';
import type { ContainerSummary, InotifyLimits, Ports, Runtime } from '../model/ports.ts';
import { openAccess, withCluster } from './access.ts';
import { listMountsThrough } from './mount-list.ts';
import { askComponents, type ComponentStatus } from './status.ts';

/** A part that takes longer has something to be said of. */
export const PART_TIMEOUT_MS = 2_500;

/** A name of the internet that is there as long as there is any; only asked for. */
const OUTSIDE_NAME = 'kubernetes.io';

export type FoundCluster = {
  readonly clusterName: string;
  readonly containers: readonly ContainerSummary[];
  readonly identity: Identity | undefined;
};

/** Every component and every container of a mount, with what it answers or why it does not run. */
export async function observeParts(found: FoundCluster, ports: Ports, signal: AbortSignal): Promise<readonly Part[]> {
  const { containers, clusterName } = found;
  const statuses = await askComponents(found, ports, signal).catch((error: unknown): readonly ComponentStatus[] => {
    if (!(error instanceof SandbarError)) throw error;
    // Without an identity nothing can be asked; that is the control plane's trouble.
    const name = containerName(found.clusterName, 'control-plane');
    return [
      { component: 'control-plane', containerName: name, state: 'running', isReady: false, detail: error.message },
    ];
  });
  const isKnown = (name: string): boolean => statuses.some((status) => status.containerName === name);
  // Containers of mounts, of which the node tells when they run.
  const others = containers.filter(({ name, state }) => state !== 'running' && !isKnown(name));
  return Promise.all([
    ...statuses.map((status) => describePart(status, found, ports)),
    ...others.map(({ name, state }) =>
      withEnd(
        { component: name.slice(containerName(clusterName, '').length), containerName: name, state },
        ports.runtime,
      ),
    ),
  ]);
}

async function describePart(status: ComponentStatus, found: FoundCluster, ports: Ports): Promise<Part> {
  const { component, containerName: name, isReady, detail } = status;
  const state = status.state as Part['state'];
  const ended = await withEnd({ component, containerName: name, state }, ports.runtime);
  if (isReady || state !== 'running') return ended;
  const isUnready = component === 'control-plane' && found.identity !== undefined;
  const [problem, startedMs] = await Promise.all([
    isUnready ? askReadyz(found, ports) : undefined,
    startOf([name, containerName(found.clusterName, 'control-plane')], ports.runtime),
  ]);
  return { ...ended, problem: problem ?? detail, startedMs };
}

/** When the last of them was started. */
async function startOf(containerNames: readonly string[], runtime: Runtime): Promise<number | undefined> {
  const runs = await Promise.all(containerNames.map((name) => runtime.inspectState(name)));
  const starts = runs.flatMap((run) => run?.startedMs ?? []);
  return starts.length === 0 ? undefined : Math.max(...starts);
}

async function askReadyz(
  { clusterName, containers, identity }: FoundCluster,
  ports: Ports,
): Promise<string | undefined> {
  const access = openAccess(clusterName, containers, identity);
  const answer = await withCluster(access, ports, (cluster) =>
    cluster.get('/readyz?verbose', { timeoutMs: PART_TIMEOUT_MS }),
  );
  return readyzProblem(answer);
}

async function withEnd(part: Pick<Part, 'component' | 'containerName' | 'state'>, runtime: Runtime): Promise<Part> {
  const healthy = { ...part, exitCode: 0, error: '', problem: undefined, startedMs: undefined, lastLine: undefined };
  if (part.state === 'running' || part.state === 'missing' || part.state === 'paused') return healthy;
  const [end, lastLine] = await Promise.all([
    runtime.inspectState(part.containerName),
    lastLineOf(runtime, part.containerName),
  ]);
  return { ...healthy, exitCode: end?.exitCode ?? 0, error: end?.error ?? '', lastLine };
}

async function lastLineOf(runtime: Runtime, ref: string): Promise<string | undefined> {
  let last: string | undefined;
  try {
    for await (const line of runtime.logs(ref, { tail: 5 })) if (line.trim() !== '') last = line;
  } catch (error) {
    // The end itself is told of; that its log cannot be had must not hide it.
    if (!(error instanceof SandbarError)) throw error;
  }
  return last;
}

/** The engine's machine as the node sees it; undefined while the agent does not run. */
export async function observeNode(found: FoundCluster, ports: Ports): Promise<NodeObservation | undefined> {
  const name = containerName(found.clusterName, 'agent');
  const agent = found.containers.find((container) => container.labels[LABELS.component] === 'agent');
  if (agent?.state !== 'running') return undefined;
  const { runtime, clock } = ports;
  const hostMs = clock.now();
  const run = (...command: readonly string[]): Promise<string | undefined> => runInside(runtime, name, command);
  const [disk, date, watches, watching, resolves] = await Promise.all([
    run('df', '-Pk', '/var/lib/containerd'),
    run('date', '+%s%3N').then((text) => ({ text, hostMs: (hostMs + clock.now()) / 2 })),
    run('cat', '/proc/sys/fs/inotify/max_user_instances', '/proc/sys/fs/inotify/max_user_watches'),
    // Says so where it gets no inotify instance, and looks again and again instead.
    run('sh', '-c', 'timeout 0.1 tail -n 0 -f /etc/passwd 2>&1 || true'),
    run('getent', 'ahostsv4', OUTSIDE_NAME).then(async (engine) => {
      // A machine without the internet says so at once; only with it the cluster's DNS has something to answer.
      if (engine === undefined) return { engine: false, cluster: undefined };
      const cluster = await run('sandbar-agent', 'resolve', OUTSIDE_NAME, '--timeout', '1s');
      return { engine: true, cluster: cluster !== undefined };
    }),
  ]);
  const nodeMs = Number(date.text);
  return {
    freeDiskBytes: disk === undefined ? undefined : parseFreeBytes(disk),
    inotifyLimits: watches === undefined ? undefined : parseInotify(watches),
    canWatchFiles: watching === undefined ? undefined : !watching.includes('inotify cannot be used'),
    clock: nodeMs > 0 ? { nodeMs, hostMs: date.hostMs } : undefined,
    resolves,
  };
}

/** Output of a command in a container; undefined where it fails or takes too long. */
export async function runInside(
  runtime: Runtime,
  ref: string,
  command: readonly string[],
): Promise<string | undefined> {
  try {
    const result = await runtime.exec(ref, command, { signal: AbortSignal.timeout(PART_TIMEOUT_MS) });
    return result.exitCode === 0 ? result.stdout : undefined;
  } catch {
    // What cannot be asked is not known; whether the container runs is told elsewhere.
    return undefined;
  }
}

/** Every mount that the cluster knows; none where neither API nor agent can be asked. */
export async function observeMounts(found: FoundCluster, ports: Ports): Promise<readonly Mount[]> {
  try {
    const access = openAccess(found.clusterName, found.containers, found.identity);
    return await listMountsThrough(access, ports, { namespace: undefined });
  } catch (error) {
    if (error instanceof SandbarError) return [];
    throw error;
  }
}

/** The fourth column of the second line of `df -Pk`. */
function parseFreeBytes(output: string): number | undefined {
  const free = Number(output.trim().split('\n').at(-1)?.split(/\s+/)[3]);
  return Number.isFinite(free) ? free * 1024 : undefined;
}

function parseInotify(output: string): InotifyLimits | undefined {
  const [maxUserInstances = 0, maxUserWatches = 0] = output.trim().split(/\s+/).map(Number);
  return maxUserInstances > 0 && maxUserWatches > 0 ? { maxUserInstances, maxUserWatches } : undefined;
}
