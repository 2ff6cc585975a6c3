/** What `up` does for mounts: those of `sandbar.yaml` become records, and every record gets its container back. */
import type { ComponentContext } from '../components/context.ts';
import { admittedPod, mountAdmission, mountContainer } from '../components/mounts.ts';
import { GROUND_KINDS } from '../components/objects.ts';
import type { Emit } from '../model/events.ts';
import { hashOf } from '../model/hash.ts';
import {
  MOUNT_LABEL,
  MOUNT_PLACE_LABEL,
  formatWanted,
  formatWorkload,
  hasSameExclusions,
  recordObject,
  volumeNameOf,
  type MountRecord,
  type MountSpec,
  type WorkloadRef,
} from '../model/mounts.ts';
import { OBJECT_HASH, OBJECT_ORIGIN, containerName } from '../model/names.ts';
import { objectIdOf } from '../model/objects.ts';
import type { Host, Runtime } from '../model/ports.ts';
import type {
  ContainerResource,
  KubernetesObject,
  ObjectResource,
  ObservedResource,
  ObservedState,
  Probe,
  Resource,
  Step,
} from '../model/resources.ts';
import { planRecords } from '../mounts/records.ts';
import { listPlaced } from './mount-agent.ts';
import { hasContainer, isOutdated, isRollable, isWithout, mountIdsIn, podsOf, rollableOf } from './mount-pods.ts';
import { parseRecords } from './mount-records.ts';

/** How long a folder may take from its container's start until the node has it. */
const ATTACH_TIMEOUT = '10s';
const PROBE_MS = 20_000;

type RollStep = Extract<Step, { readonly verb: 'roll' }>;

export type MountPlan = {
  /** Records, and the containers of their roots. */
  readonly resources: readonly Resource[];
  readonly observed: ObservedState;
  /** Workloads whose pods were made with other mounts than the records say. */
  readonly rolls: readonly RollStep[];
  /** Sources that are missing on the host and are made as folders. */
  readonly missing: readonly MountSpec[];
  /** Made by `sandbar mount`: that one of them is not in place is no failure of `up`. */
  readonly commanded: readonly MountRecord[];
  readonly warnings: readonly Warning[];
};

type Warning = { readonly text: string; readonly hint: string };

export type MountObservation = {
  /** What Docker has of the cluster. */
  readonly docker: ObservedState;
  /** Undefined while the API does not answer: then only what the file says is known. */
  readonly api: ApiObservation | undefined;
};

type ApiObservation = { readonly configMaps: readonly KubernetesObject[]; readonly pods: readonly KubernetesObject[] };

/** Whether what Docker shows belongs to a mount: which of these are wanted is known once the API answers. */
export function isMountContainer({ kind, owner }: ObservedResource): boolean {
  return kind === 'container' && owner === 'mounts';
}

/** Compares the mounts that are declared, and those made by command, with what there is. */
export async function planMounts(
  context: ComponentContext,
  { docker, api }: MountObservation,
  host: Pick<Host, 'findFileType' | 'resolvePath' | 'homeDirectory'>,
): Promise<MountPlan> {
  const { spec } = context;
  const { configMaps, pods } = api ?? { configMaps: [], pods: [] };
  const existing = parseRecords(configMaps);
  const paths = [...spec.mounts, ...existing].map(({ source }) => source).concat(existing.map(({ root }) => root));
  const typeOf = await findTypes(paths, host);
  const isThere = ({ source }: { readonly source: string }): boolean => typeOf(source) !== undefined;
  const declared = planRecords(spec.mounts, {
    origin: 'file',
    projectDirectory: spec.projectDirectory,
    homeDirectory: (await host.resolvePath(host.homeDirectory)) ?? host.homeDirectory,
    existing,
    sourceTypeOf: (source) => typeOf(source) ?? 'Directory',
  });
  const commanded = staysCommanded(existing, declared);
  const rolls = planRolls([...declared, ...commanded], existing, pods);
  const dueIds = new Set(rolls.flatMap((roll) => roll.dueIds));
  const records = [...declared, ...commanded].map((record) => withRollDue(record, dueIds));
  const containers = rootsOf(records)
    // The engine binds no folder that is gone; what a command asked for waits until it is back.
    .filter((root) => typeOf(root) !== undefined || declared.some((record) => record.root === root))
    .map((root) => containerOf(root, records, context));
  return {
    resources: [...records.map(recordResource), ...containers],
    observed: observeMounts({ docker, api }, records, containers, context),
    rolls,
    missing: spec.mounts.filter((mount) => !isThere(mount)),
    commanded: commanded.filter(isThere),
    warnings: [
      ...commanded.filter((record) => !isThere(record)).map(describeStale),
      ...records.flatMap((record) => describeUnmounted(record, pods)),
    ],
  };
}

/** Resources of a cluster, in which what uses mounts comes after them. */
export function withMounts(inside: readonly Resource[], { resources }: MountPlan): readonly Resource[] {
  const containerIds = resources.filter(({ kind }) => kind === 'container').map(({ id }) => id);
  const groundIds = inside.filter(isGround).map(({ id }) => id);
  return [
    ...inside.map((resource) =>
      isManifest(resource) && !isGround(resource)
        ? { ...resource, dependsOn: [...resource.dependsOn, ...containerIds] }
        : resource,
    ),
    ...resources.map((resource) =>
      resource.kind === 'container' ? { ...resource, dependsOn: [...resource.dependsOn, ...groundIds] } : resource,
    ),
  ];
}

/** Says of each mount made by command that it is not in place, and why. */
export async function warnOfMissing(
  records: readonly MountRecord[],
  { clusterName, runtime, emit }: { readonly clusterName: string; readonly runtime: Runtime; readonly emit: Emit },
): Promise<void> {
  if (records.length === 0) return;
  const { exitCode } = await runtime.exec(containerName(clusterName, 'agent'), waitCommand(records));
  if (exitCode === 0) return;
  const placed = new Map((await listPlaced(runtime, clusterName)).map((mount) => [mount.id, mount]));
  for (const { id, source } of records) {
    const { state = 'waiting', detail = 'the agent does not know it' } = placed.get(id) ?? {};
    if (state === 'attached') continue;
    emit({ type: 'warning', text: `${source} is not mounted (${state}): ${detail}`, hint: unmountHint(id) });
  }
}

async function findTypes(
  paths: readonly string[],
  host: Pick<Host, 'findFileType'>,
): Promise<(path: string) => MountRecord['sourceType'] | undefined> {
  const distinct = [...new Set(paths)];
  const types = await Promise.all(distinct.map(async (path) => [path, await host.findFileType(path)] as const));
  const typesByPath = new Map(types);
  return (path) => typesByPath.get(path);
}

/** Records of commands that the file does not take over; one whose parent has gone stands by itself. */
function staysCommanded(existing: readonly MountRecord[], declared: readonly MountRecord[]): readonly MountRecord[] {
  const declaredIds = new Set(declared.map(({ id }) => id));
  const staying = existing.filter(({ id, origin }) => origin === 'command' && !declaredIds.has(id));
  const ids = new Set([...declared, ...staying].map(({ id }) => id));
  return staying.map((record) =>
    record.parentId === undefined || ids.has(record.parentId) ? record : { ...record, parentId: undefined },
  );
}

function rootsOf(records: readonly MountRecord[]): readonly string[] {
  return [...new Set(records.map(({ root }) => root))];
}

function recordResource(record: MountRecord): ObjectResource {
  const object = recordObject(record);
  const annotations = { [OBJECT_HASH]: hashOfRecord(object) };
  return {
    kind: 'object',
    id: objectIdOf(object),
    owner: 'mounts',
    dependsOn: [],
    object: { ...object, metadata: { ...object.metadata, annotations } },
  };
}

/** Of all that a record says, whoever has written it. */
function hashOfRecord({ metadata: { labels }, ...object }: KubernetesObject): string {
  return hashOf([labels?.[MOUNT_LABEL], labels?.[MOUNT_PLACE_LABEL], Object.entries(object['data'] ?? {}).toSorted()]);
}

/** The container of a root, ready when the node has what the file declares of it, and new pods get it. */
function containerOf(root: string, records: readonly MountRecord[], context: ComponentContext): ContainerResource {
  const clusterName = context.spec.name;
  const own = records.filter((record) => record.root === root);
  const declared = own.filter(({ origin }) => origin === 'file');
  return {
    ...mountContainer({ clusterName, imageRef: context.imageRefs.mount }, root),
    dependsOn: [...own.map((record) => objectIdOf(recordObject(record))), ...mountAdmission().map(objectIdOf)],
    probes: [
      ...(declared.length === 0
        ? []
        : [
            {
              kind: 'exec' as const,
              containerName: containerName(clusterName, 'agent'),
              command: waitCommand(declared),
              timeoutMs: PROBE_MS,
            },
          ]),
      ...own.flatMap(admissionProbe),
    ],
  };
}

function waitCommand(records: readonly MountRecord[]): readonly string[] {
  return ['sandbar-agent', 'mounts', 'wait', ...records.map(formatWanted), '--timeout', ATTACH_TIMEOUT];
}

function admissionProbe({ id, target, parentId, isWithheld }: MountRecord): readonly Probe[] {
  if (target.kind === 'node' || parentId !== undefined || isWithheld === true) return [];
  const pod = admittedPod(target.workload);
  return [{ kind: 'admission', pod, volumeNames: [volumeNameOf(id)], timeoutMs: PROBE_MS }];
}

/** Records and containers of mounts that there are. What is not known to be unwanted is not shown, so that it stays. */
function observeMounts(
  { docker, api }: MountObservation,
  records: readonly MountRecord[],
  containers: readonly ContainerResource[],
  context: ComponentContext,
): ObservedState {
  const wantedIds = new Set(containers.map(({ id }) => id));
  const waiting = rootsOf(records).map((root) => containerOf(root, records, context).id);
  const isShown = ({ id }: ObservedResource): boolean =>
    wantedIds.has(id) || (api !== undefined && !waiting.includes(id));
  const found = [
    ...[...docker.values()].filter(isMountContainer).filter(isShown),
    ...(api?.configMaps ?? [])
      .filter(({ metadata }) => metadata.labels?.[MOUNT_LABEL] !== undefined)
      .map((object): ObservedResource => {
        const id = objectIdOf(object);
        return { id, kind: 'object', owner: 'mounts', ref: id, fingerprint: { object: hashOfRecord(object) }, object };
      }),
  ];
  return new Map(found.map((resource) => [resource.id, resource]));
}

/** One rollout for each workload with pods that lack a mount, or that were made with one that is gone. */
function planRolls(
  records: readonly MountRecord[],
  existing: readonly MountRecord[],
  pods: readonly KubernetesObject[],
): readonly RollStep[] {
  const ids = new Set(records.filter(({ parentId }) => parentId === undefined).map(({ id }) => id));
  const rolls = new Map<string, RollStep>();
  const add = (workload: WorkloadRef, change: (roll: RollStep) => Partial<RollStep>): void => {
    const whole = { ...workload, container: undefined };
    const key = formatWorkload(whole);
    const roll = rolls.get(key) ?? rollStep(whole);
    rolls.set(key, { ...roll, ...change(roll) });
  };
  for (const record of records) {
    const { target, parentId } = record;
    if (target.kind === 'node' || record.isWithheld === true || !isRollable(target.workload)) continue;
    const before = existing.find(({ id }) => id === record.id);
    // What is excluded is decided when a container is made, inside of another mount too.
    const isForced = before?.isRollDue === true || !hasSameExclusions(before, record);
    if (parentId !== undefined && !isForced) continue;
    const mounted = parentId === undefined ? [record] : [];
    add(target.workload, (roll) => ({
      mounted: [...roll.mounted, ...mounted],
      isForced: roll.isForced || isForced,
      dueIds: isForced ? [...roll.dueIds, record.id] : roll.dueIds,
    }));
  }
  for (const pod of pods) {
    const goneIds = mountIdsIn(pod).filter((id) => !ids.has(id));
    const workload = goneIds.length === 0 ? undefined : rollableOf(pod);
    if (workload === undefined) continue;
    add(workload, (roll) => ({ unmountedIds: [...new Set([...roll.unmountedIds, ...goneIds])] }));
  }
  return [...rolls.values()].filter((roll) => isOutdated(pods, roll)).map((roll) => explain(roll, pods));
}

/** Kept in the record until its rollout is done, so that an interrupted run is made good by the next. */
function withRollDue(record: MountRecord, dueIds: ReadonlySet<string>): MountRecord {
  const { isRollDue, ...rest } = record;
  if (dueIds.has(record.id)) return { ...rest, isRollDue: true };
  return isRollDue === true ? rest : record;
}

function rollStep(workload: WorkloadRef): RollStep {
  return {
    verb: 'roll',
    id: `roll ${formatWorkload(workload)}`,
    owner: 'mounts',
    cause: '',
    dependsOn: [],
    losesData: false,
    workload,
    mounted: [],
    unmountedIds: [],
    isForced: false,
    dueIds: [],
  };
}

function explain(roll: RollStep, pods: readonly KubernetesObject[]): RollStep {
  const own = podsOf(roll.workload, pods);
  const lacking = roll.mounted.filter((record) => own.some((pod) => isWithout(pod, record))).map(({ id }) => id);
  const left = roll.unmountedIds.filter((id) => own.some((pod) => mountIdsIn(pod).includes(id)));
  const causes = [
    ...(lacking.length === 0 ? [] : [`its pods were made without ${lacking.join(', ')}`]),
    ...(left.length === 0 ? [] : [`its pods were made with ${left.join(', ')}`]),
  ];
  return { ...roll, cause: causes.length === 0 ? 'what its mounts exclude changed' : causes.join('; ') };
}

/** A mount made by command whose folder is gone. */
export function describeStale({ id, source }: MountRecord): Warning {
  return { text: `${source} is gone: its mount ${id} is stale until it is back`, hint: unmountHint(id) };
}

/** Pods that nobody replaces by themselves, and containers that are not in the pods. */
function describeUnmounted(record: MountRecord, pods: readonly KubernetesObject[]): readonly Warning[] {
  const { id, target, source, parentId } = record;
  if (record.isWithheld === true) {
    const text = `the mount ${id} of ${source} was begun and not finished: new pods do not get it`;
    return [{ text, hint: `sandbar mount it again, or sandbar unmount ${id}` }];
  }
  if (target.kind === 'node' || parentId !== undefined) return [];
  const { workload } = target;
  const own = podsOf(workload, pods);
  const kubectl = `sandbar kubectl -n ${workload.namespace}`;
  const whole = formatWorkload({ ...workload, container: undefined });
  if (own.length > 0 && workload.container !== undefined && !own.some((pod) => hasContainer(pod, workload))) {
    const text = `${whole} has no container "${workload.container}": ${source} is not mounted`;
    return [{ text, hint: `${kubectl} describe pod ${own[0]?.metadata.name ?? ''} shows its containers` }];
  }
  const without = own.filter((pod) => isWithout(pod, record));
  // A CronJob makes new pods by itself.
  if (without.length === 0 || isRollable(workload) || workload.kind === 'CronJob') return [];
  const text = `pods of ${whole} were made without the mount of ${source}: new ones will have it`;
  return [{ text, hint: `${kubectl} delete pod ${without.map(({ metadata }) => metadata.name).join(' ')}` }];
}

function unmountHint(id: string): string {
  return `sandbar mounts shows its state, sandbar unmount ${id} removes it`;
}

function isManifest(resource: Resource): boolean {
  return resource.kind === 'object' && resource.object.metadata.labels?.[OBJECT_ORIGIN] === 'manifest';
}

function isGround(resource: Resource): boolean {
  return isManifest(resource) && resource.kind === 'object' && GROUND_KINDS.includes(resource.object.kind);
}
