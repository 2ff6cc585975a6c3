/** What the tests of live mounts stand on: workloads to mount into, and eyes inside their pods. */
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import type Dockerode from 'dockerode';
import { COUNT_SCRIPT, WATCH_SCRIPT } from '../fixtures/watch-scripts.ts';
import { TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { eventually, type KubernetesJson, type Running, type Sandbox } from './support.ts';

const execute = promisify(execFile);

type WorkloadOptions = {
  readonly replicas?: number;
  readonly image?: string;
  /** One container each; the first is the pod's default one. */
  readonly containers?: readonly object[];
};

/** A Deployment, StatefulSet or DaemonSet whose containers sleep, to run commands in. */
export function workload(
  kind: 'Deployment' | 'StatefulSet' | 'DaemonSet',
  name: string,
  { replicas = 1, ...options }: WorkloadOptions = {},
): object {
  return {
    apiVersion: 'apps/v1',
    kind,
    metadata: { name },
    spec: {
      ...(kind === 'DaemonSet' ? {} : { replicas }),
      ...(kind === 'StatefulSet' ? { serviceName: name } : {}),
      selector: { matchLabels: { app: name } },
      template: podTemplate(name, options),
    },
  };
}

export function podTemplate(
  name: string,
  { image = TOOLBOX_IMAGE, containers = [{ name: 'main' }] }: Omit<WorkloadOptions, 'replicas'> = {},
): object {
  return {
    metadata: { labels: { app: name } },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: containers.map((container) => ({
        image,
        imagePullPolicy: 'IfNotPresent',
        command: ['sleep', '100000'],
        ...container,
      })),
    },
  };
}

export async function apply(sandbox: Sandbox, ...items: readonly object[]): Promise<void> {
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: listOf(items) });
}

export function listOf(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** Applies a workload and waits until its pods are ready. */
export async function deploy(sandbox: Sandbox, object: object): Promise<void> {
  await apply(sandbox, object);
  const { kind, metadata } = object as { kind: string; metadata: { name: string } };
  await sandbox.mustKubectl(['rollout', 'status', `${kind}/${metadata.name}`, '--timeout=60s']);
}

export type PodState = { readonly name: string; readonly uid: string; readonly restarts: number };

/** Pods that are there to stay. The same list as before means that none was replaced or restarted. */
export async function podsOf(sandbox: Sandbox, app: string): Promise<readonly PodState[]> {
  const { items } = await sandbox.getObject('pods', '-l', `app=${app}`);
  return items.filter(({ metadata }) => metadata.deletionTimestamp === undefined).map(podState);
}

function podState({ metadata, status }: KubernetesJson): PodState {
  const containers = (status['containerStatuses'] ?? []) as readonly { readonly restartCount: number }[];
  const restarts = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
  return { name: metadata.name, uid: metadata.uid, restarts };
}

/** The only pod of a workload. */
export async function podOf(sandbox: Sandbox, app: string): Promise<string> {
  const pods = await podsOf(sandbox, app);
  if (pods.length !== 1) throw new Error(`${app} has ${String(pods.length)} pods`);
  return pods[0]?.name ?? '';
}

/** Runs a command in a pod; `pod` is as kubectl takes it, such as `deployment/web`. Returns stdout. */
export function inPod(
  sandbox: Sandbox,
  pod: string,
  command: readonly string[],
  { container }: { readonly container?: string } = {},
): Promise<string> {
  const flags = container === undefined ? [] : ['-c', container];
  return sandbox.mustKubectl(['exec', pod, ...flags, '--', ...command]);
}

/** Waits until a file in a pod holds a text: through restarts of whatever is between. */
export async function untilRead(
  sandbox: Sandbox,
  { pod, path, text, timeoutMs = 60_000 }: { pod: string; path: string; text: string; timeoutMs?: number },
): Promise<void> {
  const read = async (): Promise<true | undefined> => {
    const { exitCode, stdout } = await sandbox.kubectl(['exec', '--request-timeout=5s', pod, '--', 'cat', path]);
    return (exitCode === 0 && stdout === text) || undefined;
  };
  await eventually(`${pod}:${path} holds ${JSON.stringify(text)}`, read, { timeoutMs });
}

export type PodWatch = {
  /** Paths relative to the watched one, in the order of their events. */
  readonly names: readonly string[];
  /** Resolves when an event has named this path. */
  readonly until: (name: string) => Promise<void>;
  readonly stop: () => Promise<void>;
};

/** Watches a folder or file from inside a pod, from when this resolves on. */
export async function watchInPod(sandbox: Sandbox, pod: string, path: string): Promise<PodWatch> {
  const names: string[] = [];
  const running = await startInPod(sandbox, [pod, WATCH_SCRIPT, path], (line) => {
    names.push((JSON.parse(line) as { name: string }).name);
  });
  return {
    names,
    until: async (name) => {
      const ask = (): Promise<true | undefined> => Promise.resolve(names.includes(name) || undefined);
      await eventually(`an event of ${name} in ${pod}`, ask, { timeoutMs: 5_000 });
    },
    stop: async () => {
      running.child.kill();
      await running.ended;
    },
  };
}

/** Counts the events below a folder until its file `.done` appears; resolves when the watches are set. */
export async function countInPod(
  sandbox: Sandbox,
  pod: string,
  path: string,
): Promise<{ readonly summary: Promise<{ readonly events: number; readonly names: number }> }> {
  let summary = '';
  const running = await startInPod(sandbox, [pod, COUNT_SCRIPT, path], (line) => (summary = line));
  return { summary: running.ended.then(() => JSON.parse(summary) as { events: number; names: number }) };
}

/** Starts a script in a pod; resolves when it has printed `watching`. */
async function startInPod(
  sandbox: Sandbox,
  [pod, script, path]: readonly [string, string, string],
  onLine: (line: string) => void,
): Promise<Running> {
  let isWatching = false;
  const running = await sandbox.startKubectl(['exec', pod, '--', 'node', '-e', script, path], {
    onLine: (line) => {
      if (line === 'watching') isWatching = true;
      else onLine(line);
    },
  });
  await eventually(`a watch of ${path} in ${pod}`, async () => {
    if (running.child.exitCode !== null) throw new Error((await running.ended).stderr);
    return isWatching || undefined;
  });
  return running;
}

/** The containers that hand folders over, by name. */
export async function mountContainers(sandbox: Sandbox): Promise<readonly Dockerode.ContainerInfo[]> {
  const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
  const containers = await sandbox.docker.listContainers({ all: true, filters });
  const prefix = `/sandbar-${sandbox.name}-mount-`;
  return containers.filter(({ Names: names }) => names[0]?.startsWith(prefix));
}

/** Names of the records of mounts in the cluster. */
export async function recordNames(sandbox: Sandbox): Promise<readonly string[]> {
  const { items } = await sandbox.getObject('configmaps', '-n', 'sandbar-system', '-l', 'sandbar.dev/mount');
  return items.map(({ metadata }) => metadata.name).sort();
}

/** Runs a shell command in a container of the cluster, as `docker exec` does. Returns stdout. */
export async function inContainer(container: string, script: string): Promise<string> {
  const { stdout } = await execute('docker', ['exec', container, 'sh', '-c', script]);
  return stdout;
}

export type Traces = {
  /** What there must be as much of after 200 mounts as before. */
  readonly exact: Readonly<Record<string, number>>;
  /** Open files of the kubelet's process, where mounts are placed; it opens and closes some of its own all the time. */
  readonly kubeletFiles: number;
};

/** How much there is of everything that a mount takes. */
export async function countTraces(sandbox: Sandbox): Promise<Traces> {
  const agent = sandbox.containerName('agent');
  const count = async (script: string): Promise<number> => Number(await inContainer(agent, script));
  const kubelet = 'pid=$(pidof sandbar-kubelet)';
  const [nodeMounts, kubeletMounts, places, agentFiles, placeFiles, kubeletFiles, zombies] = await Promise.all([
    count('grep -c sandbar/mounts /proc/1/mountinfo || true'),
    count(`${kubelet}; grep -c sandbar/mounts /proc/$pid/mountinfo || true`),
    count('find /var/lib/sandbar/mounts -xdev | wc -l'),
    count('ls /proc/1/fd | wc -l'),
    count(`${kubelet}; ls -l /proc/$pid/fd | grep -c sandbar/mounts || true`),
    count(`${kubelet}; ls /proc/$pid/fd | wc -l`),
    count("cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z' || true"),
  ]);
  const [containers, volumes, records] = await Promise.all([
    mountContainers(sandbox),
    sandbox.docker.listVolumes({ filters: { label: [`dev.sandbar.cluster=${sandbox.name}`] } }),
    recordNames(sandbox),
  ]);
  let giverFiles = 0;
  for (const { Id: id } of containers) giverFiles += await openFilesOf(sandbox, id);
  return {
    exact: {
      ...{ nodeMounts, kubeletMounts, places, agentFiles, placeFiles, zombies, giverFiles },
      ...{ containers: containers.length, volumes: volumes.Volumes.length, records: records.length },
    },
    kubeletFiles,
  };
}

/** Open files of a container's process; its image has no program to count them with. */
async function openFilesOf(sandbox: Sandbox, containerId: string): Promise<number> {
  const { State: state } = await sandbox.docker.getContainer(containerId).inspect();
  // Another user may not look.
  return readdir(`/proc/${String(state.Pid)}/fd`).then(
    (files) => files.length,
    () => 0,
  );
}

/** A row of `sandbar mounts -o json`. */
export type MountRow = {
  readonly id: string;
  readonly source: string;
  readonly target: string;
  readonly workload: string;
  readonly state: string;
  readonly events: string;
  readonly fileSystem: string;
};

/** What `sandbar mounts` says. */
export async function listMounts(sandbox: Sandbox): Promise<readonly MountRow[]> {
  return JSON.parse(await sandbox.must(['mounts', '-o', 'json'])) as readonly MountRow[];
}
