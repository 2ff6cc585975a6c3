/** Waits until a container does its work; says why it does not. */
import { SandbarError } from '../model/errors.ts';
import type { Clock, Cluster, Host, Runtime } from '../model/ports.ts';
import type { Probe, Probed } from '../model/resources.ts';

/** Between two questions to a component that is starting: short beside what is waited for, long beside the question. */
const PAUSE_MS = 40;
/** Between two looks at whether the container still runs. */
const STATE_CHECK_MS = 500;
const LOG_LINES = 20;

export type WaitPorts = {
  readonly runtime: Runtime;
  readonly host: Host;
  readonly clock: Clock;
  readonly cluster: Cluster;
};

/** With this the control plane ends when it cannot read its datastore. */
const EXIT_DAMAGED = 65;

/** Resolves when every probe of the container holds; rejects with its last answer and log when it fails or takes too long. */
export async function waitUntilReady(
  resource: Probed,
  ports: WaitPorts,
  options: {
    readonly timeoutMs?: number | undefined;
    readonly signal: AbortSignal;
    /** Called with the question that is asked from now on. */
    readonly onQuestion?: (text: string) => void;
  },
): Promise<void> {
  for (const probe of resource.probes) {
    options.onQuestion?.(questionOf(probe));
    await waitForProbe(resource, { ...probe, timeoutMs: options.timeoutMs ?? probe.timeoutMs }, ports, options.signal);
  }
}

async function waitForProbe(resource: Probed, probe: Probe, ports: WaitPorts, signal: AbortSignal): Promise<void> {
  const { clock } = ports;
  const deadline = clock.now() + probe.timeoutMs;
  let nextStateCheck = clock.now() + STATE_CHECK_MS;
  for (;;) {
    signal.throwIfAborted();
    const answer = await ask(probe, ports, signal);
    if (answer === undefined) return;
    const now = clock.now();
    if (now >= nextStateCheck) {
      await checkStillRuns(resource, ports.runtime);
      nextStateCheck = now + STATE_CHECK_MS;
    }
    if (now >= deadline) {
      throw new SandbarError(
        'TIMED_OUT',
        `${resource.owner} was not ready after ${String(Math.round(probe.timeoutMs / 1000))} s: ${answer}`,
        {
          details: await lastLines(resource, ports.runtime),
          hint: `sandbar logs ${resource.owner} shows more; sandbar up tries again`,
        },
      );
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** Undefined when the probe holds, else what was seen instead. */
export async function ask(probe: Probe, ports: WaitPorts, signal: AbortSignal): Promise<string | undefined> {
  switch (probe.kind) {
    case 'http': {
      const { status } = await ports.host.httpGet(probe.url, { timeoutMs: 2_000 });
      return probe.acceptedStatuses.includes(status) ? undefined : `${probe.url}: ${describeStatus(status)}`;
    }
    case 'api': {
      const { status } = await ports.cluster.get(probe.path, { timeoutMs: 2_000 });
      return status === 200 ? undefined : `${probe.path}: ${describeStatus(status)}`;
    }
    case 'node':
      return askNode(probe, ports);
    case 'admission':
      return askAdmission(probe, ports.cluster);
    case 'exec': {
      try {
        const { exitCode, stderr } = await ports.runtime.exec(probe.containerName, probe.command, { signal });
        return exitCode === 0
          ? undefined
          : stderr.trim() || `${probe.command.join(' ')} ended with ${String(exitCode)}`;
      } catch (error) {
        // Not running, or restarting: the state check tells which, once it has lasted.
        if (error instanceof SandbarError) return error.message;
        throw error;
      }
    }
  }
}

async function askNode(
  { path, containerName }: Extract<Probe, { readonly kind: 'node' }>,
  { cluster, runtime, clock }: WaitPorts,
): Promise<string | undefined> {
  const { status, body } = await cluster.get(path, { timeoutMs: 2_000 });
  if (status !== 200) return `${path}: ${describeStatus(status)}`;
  const ready = readyConditionIn(body);
  if (ready?.status !== 'True') return `not Ready: ${ready?.message ?? 'not reported yet'}`;
  const startedMs = (await runtime.inspectState(containerName))?.startedMs;
  return isSaidBefore(startedMs, ready, clock.now()) ? 'not Ready: not reported since its start' : undefined;
}

type ReadyCondition = {
  readonly status: string;
  readonly message?: string;
  /** RFC 3339, in whole seconds. */
  readonly lastHeartbeatTime?: string;
};

function readyConditionIn(node: string): ReadyCondition | undefined {
  type Node = { readonly status?: { readonly conditions?: readonly (ReadyCondition & { readonly type: string })[] } };
  return (JSON.parse(node) as Node).status?.conditions?.find(({ type }) => type === 'Ready');
}

/** A start in what is now the future tells nothing: the clock was set back meanwhile. */
function isSaidBefore(startedMs: number | undefined, { lastHeartbeatTime }: ReadyCondition, nowMs: number): boolean {
  if (startedMs === undefined || lastHeartbeatTime === undefined || startedMs > nowMs) return false;
  return Date.parse(lastHeartbeatTime) < Math.floor(startedMs / 1000) * 1000;
}

async function askAdmission(
  { pod, volumeNames }: Extract<Probe, { readonly kind: 'admission' }>,
  cluster: Cluster,
): Promise<string | undefined> {
  try {
    const { volumes = [] } = (await cluster.create(pod, { isDryRun: true }))['spec'] as {
      readonly volumes?: readonly { readonly name: string }[];
    };
    const missing = volumeNames.filter((wanted) => !volumes.some(({ name }) => name === wanted));
    return missing.length === 0 ? undefined : `pods are created without ${missing.join(', ')}`;
  } catch (error) {
    if (!(error instanceof SandbarError)) throw error;
    // Without its namespace there is no such pod, and of one that is there under its name no second can be asked for.
    if (error.code === 'NOT_FOUND' || error.code === 'CONFLICT') return undefined;
    // The namespace may lack its ServiceAccount yet, or the API server its schemas.
    return error.message;
  }
}

function questionOf(probe: Probe): string {
  switch (probe.kind) {
    case 'http':
      return probe.url;
    case 'api':
      return probe.path;
    case 'node':
      return `${probe.path} Ready`;
    case 'exec':
      return probe.command.join(' ');
    case 'admission':
      return `new pods with ${probe.volumeNames.join(', ')}`;
  }
}

function describeStatus(status: number): string {
  return status === 0 ? 'no answer' : `HTTP ${String(status)}`;
}

async function checkStillRuns(resource: Probed, runtime: Runtime): Promise<void> {
  const state = await runtime.inspectState(resource.container.name);
  const isGone = state === undefined || state.state === 'exited' || state.state === 'dead';
  const isFailing = state?.state === 'restarting' && state.exitCode !== 0;
  if (!isGone && !isFailing) return;
  if (resource.owner === 'control-plane' && state?.exitCode === EXIT_DAMAGED) {
    throw new SandbarError('DATASTORE_DAMAGED', 'the datastore of the cluster cannot be read', {
      details: await lastLines(resource, runtime),
      hint: 'sandbar snapshot restore NAME where sandbar snapshot ls shows one, else sandbar reset --hard',
    });
  }
  const end = state === undefined ? 'is gone' : `ended with exit code ${String(state.exitCode)} ${state.error}`.trim();
  throw new SandbarError('COMPONENT_FAILED', `${resource.owner} ${end}`, {
    details: await lastLines(resource, runtime),
    hint: `sandbar logs ${resource.owner} shows more; after a change of sandbar.yaml, sandbar up tries again`,
  });
}

async function lastLines(resource: Probed, runtime: Runtime): Promise<readonly string[]> {
  const lines: string[] = [];
  try {
    for await (const line of runtime.logs(resource.container.name, { tail: LOG_LINES })) lines.push(line);
  } catch {
    // The failure itself is reported; that its log cannot be had must not hide it.
  }
  return lines.slice(-LOG_LINES);
}
