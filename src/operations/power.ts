/** `stop`, `pause`, `resume`, `restart`: whether a cluster's containers run. What they are and hold stays as it is. */
import { apply } from '../engine/apply.ts';
import { observeDocker, type DockerObservation } from '../engine/observe.ts';
import { CONTROL_PLANE } from '../engine/plan.ts';
import { planPause, planRestart, planResume, planStop, type PowerPlan } from '../engine/power.ts';
import { waitUntilReady } from '../engine/wait.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Identity } from '../model/identity.ts';
import { COMPONENTS, isAside, LABELS, nodeName, type Component } from '../model/names.ts';
import { mountComponentOf, type MountRecord } from '../model/mounts.ts';
import type { Cluster, ContainerSummary, Host, Ports } from '../model/ports.ts';
import type { Deed, ObjectRef, Probed } from '../model/resources.ts';
import {
  accessOf,
  clusterNotFound,
  clusterState,
  componentOf,
  readIdentity,
  requireAwake,
  requireRestored,
  withCluster,
  withClusterLock,
} from './access.ts';
import { probesFor } from './component-probes.ts';
import { listRecords } from './mount-records.ts';
import { runDeed, throwFailures } from './steps.ts';
import { describeStale, warnOfMissing } from './up-mounts.ts';

export type PowerRequest = {
  readonly clusterName: string;
  /** How long to wait for each part, in milliseconds. */
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

/** Ids of the steps that were taken; none where all was so already. */
export type PowerResult = { readonly clusterName: string; readonly steps: readonly string[] };

/** Docker steps at a time: the engine does them side by side, and most of each is waiting. */
const CONCURRENCY = 16;

/** A part that ran a moment ago is back in seconds. */
const READY_MS = 60_000;

/** One that does not answer by then is started anew without being asked. */
const API_MS = 2_000;

/** An API server that does not answer at once is frozen without ado. */
const LEASE_MS = 200;

type Context = {
  readonly request: PowerRequest;
  readonly ports: Ports;
  readonly emit: Emit;
  readonly docker: DockerObservation;
  readonly identity: Identity | undefined;
};

/** Ends every container, each in its own time. */
export function stop(request: PowerRequest, ports: Ports, emit: Emit): Promise<PowerResult> {
  return withContext(request, { ports, emit }, (context) => run(planStop(context.docker.state), context));
}

/** Freezes every container: all stays in memory and takes no processor. */
export function pause(request: PowerRequest, ports: Ports, emit: Emit): Promise<PowerResult> {
  return withContext(request, { ports, emit }, (context) => {
    requireStarted(context);
    return run(planPause(context.docker.state), context, async (step) => {
      if (step.observed.id === CONTROL_PLANE) await renewLease(context);
      await runDeed(step, ports.runtime);
    });
  });
}

/** Lets every container go on that is frozen, and waits until the API answers; the rest answers as soon or a moment later. */
export function resume(request: PowerRequest, ports: Ports, emit: Emit): Promise<PowerResult> {
  return withContext(request, { ports, emit }, (context) => {
    requireStarted(context);
    requireRestored(context.docker.containers);
    const awaited = awaitedOf(context).filter(({ owner }) => owner === 'control-plane');
    return run(planResume(context.docker.state, awaited), context);
  });
}

/** Ends and starts the containers of a component, or all, and waits until the cluster answers. */
export function restart(
  request: PowerRequest & { readonly component: string | undefined },
  ports: Ports,
  emit: Emit,
): Promise<PowerResult> {
  return withContext(request, { ports, emit }, async (context) => {
    const { clusterName, component } = request;
    const { docker, identity } = context;
    requireAwake(clusterName, docker.containers);
    requireRestored(docker.containers);
    if (component !== undefined && componentOf(docker.containers, component) === undefined) {
      throw new SandbarError('NOT_FOUND', `cluster "${clusterName}" has no container of ${component}`, {
        hint: `there are ${componentsOf(docker.containers).join(', ')}; sandbar up makes what is missing`,
      });
    }
    const leftOut = await findUnstartable(context);
    const awaited = awaitedOf(context).filter(({ owner }) => !isAside(owner) || owner === component);
    const result = await run(planRestart(docker.state, { component, leftOut, awaited }), context);
    const { host, runtime } = ports;
    const access = accessOf(clusterName, docker.containers, identity);
    const records = await withCluster(access, ports, listRecords);
    const gone = await findGone(records, ({ source }) => source, host);
    for (const record of gone) emit({ type: 'warning', ...describeStale(record) });
    const attachable = records.filter((record) => !gone.includes(record));
    await warnOfMissing(attachable, { clusterName, runtime, emit });
    return result;
  });
}

/** Ids of mount containers whose folder is gone: the engine starts none of these. Without an API nothing is known of them. */
async function findUnstartable({ request, ports, docker, identity }: Context): Promise<ReadonlySet<string>> {
  if (componentOf(docker.containers, 'mounts') === undefined) return new Set();
  const access = accessOf(request.clusterName, docker.containers, identity);
  const records = await withCluster(access, ports, async (cluster) =>
    (await cluster.get('/readyz', { timeoutMs: API_MS })).status === 200 ? listRecords(cluster) : [],
  );
  const gone = await findGone(records, ({ root }) => root, ports.host);
  return new Set(gone.map(({ root }) => `container/${mountComponentOf(root)}`));
}

/** Records whose path is not there on the host. */
async function findGone(
  records: readonly MountRecord[],
  pathOf: (record: MountRecord) => string,
  host: Host,
): Promise<readonly MountRecord[]> {
  const types = await Promise.all(records.map((record) => host.findFileType(pathOf(record))));
  return records.filter((_, index) => types[index] === undefined);
}

async function withContext(
  request: PowerRequest,
  { ports, emit }: Pick<Context, 'ports' | 'emit'>,
  work: (context: Context) => Promise<PowerResult>,
): Promise<PowerResult> {
  const { clusterName, signal } = request;
  const { runtime, host } = ports;
  return withClusterLock(clusterName, { host, emit, signal }, async () => {
    const [docker, identity] = await Promise.all([
      observeDocker(runtime, clusterName),
      readIdentity(runtime, clusterName),
    ]);
    if (docker.containers.length === 0) throw await clusterNotFound(runtime, clusterName);
    return work({ request, ports, emit, docker, identity });
  });
}

async function run(
  steps: PowerPlan,
  { request, ports, emit, docker, identity }: Context,
  perform = (step: Deed): Promise<void> => runDeed(step, ports.runtime),
): Promise<PowerResult> {
  const { clusterName, signal } = request;
  if (steps.length > 0) emit({ type: 'plan', steps: steps.map(({ id, owner, cause }) => ({ id, owner, cause })) });
  // What only ends or freezes needs no identity: it must work for a cluster that lacks some of itself.
  let cluster: Cluster | undefined;
  const connect = (): Cluster =>
    (cluster ??= ports.connectCluster(accessOf(clusterName, docker.containers, identity).api));
  try {
    const failures = await apply(steps, {
      runStep: async (step, report) => {
        if (step.verb !== 'wait') await perform(step);
        else await waitUntilReady(step.resource, { ...ports, cluster: connect() }, { ...request, onQuestion: report });
      },
      emit,
      clock: ports.clock,
      concurrency: CONCURRENCY,
      signal,
    });
    if (signal.aborted) throw signal.reason;
    throwFailures(failures);
    return { clusterName, steps: steps.filter(({ verb }) => verb !== 'wait').map(({ id }) => id) };
  } finally {
    cluster?.close();
  }
}

/**
 * A sign of life in the node's name, just before nobody can give one. After a long pause the control plane finds it
 * unread, and waits for the next instead of taking the node for dead. The agent is frozen by then: whoever is asked
 * before leases are written may be a pod.
 */
async function renewLease({ request, ports, docker, identity }: Context): Promise<void> {
  const { clusterName } = request;
  if (identity === undefined || componentOf(docker.containers, 'control-plane')?.state !== 'running') return;
  const name = nodeName(clusterName);
  const path = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${name}`;
  const renewing = withCluster(accessOf(clusterName, docker.containers, identity), ports, async (cluster) => {
    const { status, body } = await cluster.get(path, { timeoutMs: LEASE_MS });
    if (status !== 200) return;
    const lease = JSON.parse(body) as LeaseObject;
    // By the node's own clock: the host's may be another.
    const renewTime = new Date(Date.parse(lease.spec.renewTime) + 1).toISOString().replace('Z', '000Z');
    await cluster.patch(lease, { spec: { renewTime } }, { timeoutMs: LEASE_MS });
  });
  // Without it the node counts as lost for a moment after the pause; half a pause would be worse.
  await renewing.catch(() => undefined);
}

type LeaseObject = ObjectRef & { readonly spec: { readonly renewTime: string } };

/** The components that are there: each has to answer. */
function awaitedOf({ request: { clusterName }, docker: { containers } }: Context): readonly Probed[] {
  return COMPONENTS.flatMap((component: Component): readonly Probed[] => {
    const container = componentOf(containers, component);
    if (container === undefined) return [];
    const probes = probesFor(component, clusterName, { containers, timeoutMs: READY_MS });
    return [{ id: `container/${component}`, owner: component, container: { name: container.name }, probes }];
  });
}

function componentsOf(containers: readonly ContainerSummary[]): readonly string[] {
  return [...new Set(containers.flatMap(({ labels }) => labels[LABELS.component] ?? []))].sort();
}

function requireStarted({ request: { clusterName }, docker: { containers } }: Context): void {
  if (clusterState(containers) === 'stopped') requireAwake(clusterName, containers);
}
