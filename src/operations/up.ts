/** `up`: makes a cluster what its spec says, from whatever is there. */
import { desiredCluster, type DesiredCluster } from '../components/cluster.ts';
import {
  isRegistryHosts,
  readRegistryHosts,
  registry as registryResources,
  registryHosts,
  type RegistryHosts,
} from '../components/registry.ts';
import type { ComponentContext, ImageRefs } from '../components/context.ts';
import { ENCRYPTION_PATH } from '../components/hardening.ts';
import { apply } from '../engine/apply.ts';
import { observeBuckets, observeDocker, observeObjects, observeRegistry } from '../engine/observe.ts';
import { formatPlan, isConverged, isForLater, plan } from '../engine/plan.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { containerName, networkName, SYSTEM_NAMESPACE } from '../model/names.ts';
import type {
  KubernetesObject,
  ObjectResource,
  ObservedResource,
  ObservedState,
  Plan,
  Step,
} from '../model/resources.ts';
import { objectIdOf } from '../model/objects.ts';
import { formatWorkload } from '../model/mounts.ts';
import { SNAPSHOTS_VOLUME } from '../model/snapshots.ts';
import type { Cluster, Host, ObjectStore, Ports, Runtime } from '../model/ports.ts';
import type { ClusterSpec } from '../model/spec.ts';
import { adminAccess, requireRestored, withClusterLock } from './access.ts';
import { announceUpgrade, formOf, recordLastUp, type LastUp, type UpOrigin } from './last-up.ts';
import type { MintRoot } from './local-authority.ts';
import { requireHostPaths } from './mount-workloads.ts';
import { repairDatastore } from './datastore.ts';
import { untilEnded } from './ending-namespaces.ts';
import { together } from './phase.ts';
import { preflight } from './preflight.ts';
import { tellRegistry, writeRegistryHosts } from './registry.ts';
import { runStep, throwFailures, type StepTargets } from './steps.ts';
import { otherNetworksOf } from './settle.ts';
import { readKept, settle, type Ground, type MintIdentity } from './up-ground.ts';
import { planPorts, warnOfClosed } from './up-ports.ts';
import { isMountContainer, planMounts, warnOfMissing, withMounts, type MountPlan } from './up-mounts.ts';

/** Docker steps at a time. */
const CONCURRENCY = 6;

/** How often a subnet or a port is chosen anew that somebody has taken meanwhile. */
const ATTEMPTS = 3;

export type UpRequest = {
  readonly spec: ClusterSpec;
  /** Objects of the spec's manifests, parsed. */
  readonly manifests: readonly KubernetesObject[];
  /** What the spec was made from. */
  readonly origin: UpOrigin;
  readonly isDryRun: boolean;
  /** Asks before data are lost; undefined where nobody can be asked. */
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
  /** Overrides every probe's own limit, in milliseconds. */
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

export type UpDependencies = {
  readonly ports: Ports;
  readonly emit: Emit;
  /** Present locally, or made so: pulled, built. */
  readonly ensureImages: () => Promise<ImageRefs>;
  readonly mintIdentity: MintIdentity;
  readonly mintRoot: MintRoot;
};

export type UpResult = {
  readonly clusterName: string;
  /** Steps that were planned, waits left out; empty when everything was as it should be. */
  readonly plan: Plan;
  readonly isDryRun: boolean;
  readonly context: ComponentContext;
};

/**
 * Converges. Safe to run again at any time, after any interruption; two runs for the same cluster take turns. Throws
 * SandbarError with every failure of the run.
 */
export async function up(request: UpRequest, dependencies: UpDependencies): Promise<UpResult> {
  const { host } = dependencies.ports;
  const { spec, signal } = request;
  if (request.isDryRun) return converge(request, dependencies);
  return withClusterLock(spec.name, { host, emit: dependencies.emit, signal }, () => converge(request, dependencies));
}

/** The same for who holds the cluster's lock. */
export async function converge(request: UpRequest, dependencies: UpDependencies): Promise<UpResult> {
  const { ports, ensureImages } = dependencies;
  const { spec, signal } = request;
  const kept = readKept(ports.runtime, spec.name);
  const imageRefs = await ensureImages();
  signal.throwIfAborted();
  const ground: Ground = { imageRefs, kept };

  // Two clusters that come up at once must not choose the same subnet or port.
  const onWait = (): void => undefined;
  const built = await (request.isDryRun
    ? build(request, dependencies, ground)
    : ports.host.withLock('allocation', { onWait, signal }, () => buildUndisturbed(request, dependencies, ground)));
  const { context, changes } = built;
  const targets = connect(context, request, dependencies);
  try {
    if (request.isDryRun) {
      const inside = isConverged(changes)
        ? await planInside(built, targets)
        : await planWithoutApi(built, targets.waitPorts.host);
      announce(inside, dependencies.emit, { isDryRun: true });
      return { clusterName: spec.name, plan: [...changes, ...changesOf(inside)], isDryRun: true, context };
    }
    // The lock is held until both have ended.
    const [inside] = await together(signal, [
      (ending) =>
        bringUp(built, { ...targets, signal: ending }, { request: { ...request, signal: ending }, dependencies }),
      () => record(built, request, ports.runtime),
    ]);
    return { clusterName: spec.name, plan: [...changes, ...changesOf(inside)], isDryRun: false, context };
  } finally {
    targets.waitPorts.cluster.close();
  }
}

type Built = {
  readonly context: ComponentContext;
  readonly desired: DesiredCluster;
  /** What Docker had of the cluster before. */
  readonly observed: ObservedState;
  readonly lastUp: Promise<LastUp | undefined>;
  readonly changes: Plan;
  /** Of the changes, what nobody waits for: done while the rest comes up, so that it takes no time from that. */
  readonly later: Plan;
  readonly waits: Plan;
  /** Why it has to be done again, from what there is now. */
  readonly taken?: SandbarError;
};

/**
 * Makes what Docker holds of the cluster. Somebody whom our lock does not hold up may take the chosen subnet or port
 * between the look and the deed: then others are chosen.
 */
async function buildUndisturbed(request: UpRequest, dependencies: UpDependencies, ground: Ground): Promise<Built> {
  for (let attempt = 1; ; attempt += 1) {
    // The first attempt may have made the container that the identity is read through.
    const kept = attempt === 1 ? ground.kept : readKept(dependencies.ports.runtime, request.spec.name);
    const built = await build(request, dependencies, { ...ground, kept });
    if (built.taken === undefined) return built;
    if (attempt === ATTEMPTS) throw built.taken;
    dependencies.emit({ type: 'notice', text: `${built.taken.message}: trying another` });
  }
}

async function build(request: UpRequest, dependencies: UpDependencies, ground: Ground): Promise<Built> {
  const { ports, emit } = dependencies;
  const { name: clusterName, registry: wishedRegistry } = request.spec;
  const [docker, registry] = await Promise.all([
    observeDocker(ports.runtime, clusterName),
    observeRegistry(ports.runtime, { registryName: wishedRegistry?.name, networkName: networkName(clusterName) }),
  ]);
  const { context, lastUp } = await settle(request, dependencies, { ...docker, registry }, ground);
  const desired = desiredCluster(context, request.manifests);
  requireRestored(docker.containers);
  const isOurs = (resource: ObservedResource): boolean =>
    !isMountContainer(resource) && resource.id !== SNAPSHOTS_VOLUME;
  const observed = new Map([...docker.state, ...registry.state].filter(([, resource]) => isOurs(resource)));
  const steps = plan(desired.docker, observed);
  const changes = steps.filter((step) => step.verb !== 'wait');
  const waits = steps.filter((step) => step.verb === 'wait').map((step) => ({ ...step, dependsOn: [] }));
  const later = changes
    .filter((step) => isForLater(step) && !isOfRegistry(step))
    .map((step) => ({ ...step, dependsOn: [] }));
  const planned = { context, desired, observed: docker.state, lastUp, changes, later, waits };
  const upgrade = changes.length === 0 ? undefined : announceUpgrade(await lastUp, request.spec, emit);
  if (isSealedFromNowOn(changes, request.spec, docker.state)) emit({ type: 'notice', text: SEALED_FROM_NOW_ON });
  if (request.isDryRun || changes.length === 0) return planned;
  await preflight(ports.runtime, ports.host, emit);
  if (upgrade !== undefined) await requireAgreement(upgrade, request);
  await confirmLosses(changes, request);
  emitPlan([...changes, ...waits], emit);
  const targets = connect(context, request, dependencies);
  try {
    const now = changes.filter((step) => !isForLater(step) && !isOfRegistry(step));
    await applyOrThrow(now, targets, dependencies, request.signal);
    return planned;
  } catch (error) {
    if (isTakenMeanwhile(error, request.spec)) return { ...planned, taken: error };
    throw error;
  } finally {
    targets.waitPorts.cluster.close();
  }
}

const SEALED_FROM_NOW_ON =
  'Secrets are encrypted when they are written next; kubectl get secrets -A -o json | kubectl replace -f - writes all';

/** True where a cluster that is there begins to encrypt. */
function isSealedFromNowOn(changes: Plan, spec: ClusterSpec, observed: ObservedState): boolean {
  const isChange = (step: Step): boolean => step.verb === 'create' && step.cause.includes(ENCRYPTION_PATH);
  return spec.kubernetes.isEncrypted && observed.has('volume/datastore') && changes.some(isChange);
}

/** True where the user has not asked for this very subnet or port. */
function isTakenMeanwhile(error: unknown, spec: ClusterSpec): error is SandbarError {
  if (!(error instanceof SandbarError)) return false;
  if (error.code === 'SUBNET_IN_USE') return spec.network.subnet === undefined;
  const wishes = [...Object.values(spec.ports), ...(spec.registry === undefined ? [] : [spec.registry.port])];
  return error.code === 'PORT_IN_USE' && wishes.some((port) => !port.isFixed);
}

/** Waits for the containers, and meanwhile puts inside what is wanted as soon as that part answers. */
async function bringUp(
  built: Built,
  targets: StepTargets,
  options: { readonly request: UpRequest; readonly dependencies: UpDependencies },
): Promise<Inside> {
  const { dependencies, request } = options;
  const { waits, later } = built;
  const isGround = (step: Step): boolean => step.owner === 'control-plane' || step.owner === 'object-store';
  const groundLost = new AbortController();
  const othersSignal = AbortSignal.any([request.signal, groundLost.signal]);
  const grounded = applyOrThrow(waits.filter(isGround), targets, dependencies, request.signal).catch(
    (error: unknown) => {
      // The others wait for these parts, and longer.
      groundLost.abort(new Error('it needs a part that did not come up'));
      throw error;
    },
  );
  const settled = await Promise.allSettled([
    applyOrThrow(
      waits.filter((step) => !isGround(step)),
      { ...targets, signal: othersSignal },
      dependencies,
      othersSignal,
    ),
    grounded.then(async () => {
      await untilEnded(targets.waitPorts.cluster, namespacesOf(built), { ...targets.waitPorts, ...request });
      const [inside, repaired] = await Promise.all([
        planInside(built, targets),
        repairDatastore(targets.waitPorts.cluster, request.signal),
      ]);
      if (repaired.length > 0) dependencies.emit({ type: 'notice', text: `made again: ${repaired.join(', ')}` });
      const { steps, mounts } = inside;
      await tellNode(built, inside, targets.waitPorts.runtime);
      await confirmLosses(steps, request);
      announce(inside, dependencies.emit, { isDryRun: false });
      for (const { source } of mounts.missing) await targets.waitPorts.host.makeDirectory(source);
      await applyOrThrow(steps, targets, dependencies, request.signal);
      return inside;
    }),
    // The processor is less busy then, while the node gets ready.
    grounded.then(() => applyOrThrow(later, targets, dependencies, request.signal)),
    grounded.then(() => provideRegistry(built, targets, { request, dependencies })),
  ]);
  const [others, ground, aside, registry] = settled;
  if (ground.status === 'rejected') throw ground.reason;
  if (others.status === 'rejected') throw others.reason;
  if (aside.status === 'rejected') throw aside.reason;
  if (registry.status === 'rejected') throw registry.reason;
  const { mounts } = ground.value;
  // New pods need all of the cluster.
  await applyOrThrow(mounts.rolls, targets, dependencies, request.signal);
  const { emit } = dependencies;
  await warnOfMissing(mounts.commanded, { ...targets, ...targets.waitPorts, emit });
  await warnOfClosed(built.context.spec.publish, { ...targets, ...targets.waitPorts, emit });
  return ground.value;
}

/**
 * A network can only be removed when nothing is attached to it, and by its volume a registry keeps its port from
 * others that are made meanwhile; all else of the registry is for later.
 */
function isOfRegistry(step: Step): boolean {
  if (step.owner !== 'registry') return false;
  if (step.verb === 'remove') return step.observed.kind !== 'attachment';
  return !(step.verb === 'create' && step.resource.kind === 'volume');
}

/** The registry belongs to other clusters too, whose `up` may be making it: it is looked at again while none does. */
async function provideRegistry(
  { context, changes }: Built,
  targets: StepTargets,
  { request, dependencies }: { readonly request: UpRequest; readonly dependencies: UpDependencies },
): Promise<void> {
  const { runtime, host } = targets.waitPorts;
  const { signal } = request;
  if (changes.some(isOfRegistry)) {
    const wanted = { registryName: context.registry?.name, networkName: networkName(context.spec.name) };
    await host.withLock('allocation', { onWait: () => undefined, signal }, async () => {
      const [observation, networks] = await Promise.all([observeRegistry(runtime, wanted), runtime.listNetworks()]);
      const registry = context.registry && {
        ...context.registry,
        otherNetworks: otherNetworksOf(context.registry.name, {
          observation,
          networks,
          ownNetwork: wanted.networkName,
        }),
      };
      const steps = plan(registryResources({ ...context, registry }), observation.state);
      await applyOrThrow(steps, targets, dependencies, signal);
    });
  }
  await tellRegistry(context, runtime);
}

/** Those that every cluster has, and those of what is put into it. */
function namespacesOf({ desired }: Built): ReadonlySet<string> {
  const objects = desired.inside.flatMap((resource) => (resource.kind === 'object' ? [resource.object.metadata] : []));
  return new Set(['kube-node-lease', ...objects.flatMap(({ namespace }) => namespace ?? [])]);
}

type Inside = {
  readonly steps: Plan;
  readonly mounts: MountPlan;
  /** What the node was told last of registries, where that is to change. */
  readonly oldHosts?: RegistryHosts;
};

async function planInside(
  { context, desired: { inside }, observed: docker }: Built,
  targets: StepTargets,
): Promise<Inside> {
  const objects = inside.filter((resource): resource is ObjectResource => resource.kind === 'object');
  const buckets = inside.flatMap((resource) => (resource.kind === 'bucket' ? [resource.bucket.name] : []));
  const { cluster, host } = targets.waitPorts;
  const [maps, pods] = await Promise.all([
    cluster.list({ apiVersion: 'v1', kind: 'ConfigMap' }, { namespace: SYSTEM_NAMESPACE }),
    cluster.list({ apiVersion: 'v1', kind: 'Pod' }, {}),
  ]);
  const [observedObjects, observedBuckets, mounts] = await Promise.all([
    observeObjects(
      cluster,
      objects,
      maps.find((object) => object.metadata.name === 'inventory'),
    ),
    targets.objectStore === undefined ? new Map() : observeBuckets(targets.objectStore, buckets),
    planMounts(context, { docker, api: { configMaps: maps, pods } }, host),
  ]);
  const namespaces = context.spec.mounts.flatMap(({ target }) =>
    target.kind === 'workload' ? [target.workload.namespace] : [],
  );
  for (const namespace of new Set(namespaces)) await requireHostPaths(cluster, namespace);
  const ports = planPorts(context.spec.publish, maps);
  const observed: ObservedState = new Map([
    ...observedObjects,
    ...observedBuckets,
    ...mounts.observed,
    ...ports.observed,
  ]);
  const steps = plan([...withMounts(inside, mounts), ...ports.resources], observed);
  const changesHosts = steps.some((step) => step.verb === 'update' && isRegistryHosts(step.resource));
  const oldHosts = readRegistryHosts(maps.find((object) => isRegistryHosts({ id: objectIdOf(object) })));
  return { steps, mounts, ...(changesHosts ? { oldHosts } : {}) };
}

/** An agent that was made just now has it all. What is in the cluster says that it was told, and comes last. */
async function tellNode({ context, changes }: Built, { oldHosts }: Inside, runtime: Runtime): Promise<void> {
  if (oldHosts === undefined || changes.some(({ id }) => id === 'create container/agent')) return;
  const agentRef = containerName(context.spec.name, 'agent');
  await writeRegistryHosts(agentRef, { old: oldHosts, wanted: registryHosts(context) }, runtime);
}

/** Of a cluster that does not run, what its datastore holds is not known: whether it has the records of the file. */
async function planWithoutApi({ context, observed: docker }: Built, host: Host): Promise<Inside> {
  const mounts = await planMounts(context, { docker, api: undefined }, host);
  const isFresh = !docker.has('volume/datastore');
  const foreseen = mounts.resources.filter((resource) => isFresh || resource.kind === 'container');
  const ports = isFresh ? planPorts(context.spec.publish, []).resources : [];
  return { steps: plan([...foreseen, ...ports], mounts.observed), mounts };
}

/** From now on this is what the cluster was made from, however the rest of this run ends. */
async function record({ lastUp }: Built, { spec, origin }: UpRequest, runtime: Runtime): Promise<void> {
  await recordLastUp(runtime, spec.name, { origin, last: await lastUp, form: formOf(spec) });
}

function changesOf({ steps, mounts }: Inside): Plan {
  return [...steps.filter((step) => step.verb !== 'wait'), ...mounts.rolls];
}

/** Says what is about to happen. */
function announce(inside: Inside, emit: Emit, { isDryRun }: { readonly isDryRun: boolean }): void {
  const { rolls, warnings } = inside.mounts;
  if (!isDryRun && changesOf(inside).length > 0) emitPlan([...inside.steps, ...rolls], emit);
  for (const warning of warnings) emit({ type: 'warning', ...warning });
  for (const { workload, cause } of rolls) {
    const verb = isDryRun ? 'would be' : 'is';
    emit({ type: 'notice', text: `${formatWorkload(workload)} ${verb} rolled once: ${cause}` });
  }
}

function connect(context: ComponentContext, request: UpRequest, dependencies: UpDependencies): StepTargets {
  const { ports } = dependencies;
  const { identity, spec } = context;
  const cluster: Cluster = ports.connectCluster(adminAccess(identity, context.ports.api));
  const objectStore: ObjectStore | undefined = spec.objectStore.isEnabled
    ? ports.connectObjectStore({
        endpoint: `http://127.0.0.1:${String(context.ports.objectStore)}`,
        ...identity.objectStore,
        region: spec.objectStore.region,
      })
    : undefined;
  return {
    clusterName: spec.name,
    waitPorts: { runtime: ports.runtime, host: ports.host, clock: ports.clock, cluster },
    objectStore,
    timeoutMs: request.timeoutMs,
    signal: request.signal,
  };
}

async function confirmLosses(steps: Plan, request: UpRequest): Promise<void> {
  const losses = steps.filter((step) => step.losesData);
  if (losses.length === 0) return;
  const question = `this loses data:\n${formatPlan(losses)}`;
  await requireAgreement({ question, hint: 'add --yes to agree' }, request);
}

async function requireAgreement(
  { question, hint }: { readonly question: string; readonly hint: string },
  { confirm }: UpRequest,
): Promise<void> {
  if (confirm === undefined) throw new SandbarError('CONFIRMATION_NEEDED', question, { hint });
  if (!(await confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was changed', { exitCode: 1 });
}

async function applyOrThrow(
  steps: Plan,
  targets: StepTargets,
  dependencies: UpDependencies,
  signal: AbortSignal,
): Promise<void> {
  const failures = await apply(steps, {
    runStep: (step, report) => runStep(step, targets, report),
    emit: dependencies.emit,
    clock: dependencies.ports.clock,
    concurrency: CONCURRENCY,
    signal,
  });
  if (signal.aborted) throw signal.reason;
  throwFailures(failures);
}

function emitPlan(steps: Plan, emit: Emit): void {
  if (steps.length > 0) emit({ type: 'plan', steps: steps.map(({ id, owner, cause }) => ({ id, owner, cause })) });
}

export { formatPlan };
