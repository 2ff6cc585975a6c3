/** Desired and observed in, steps out. Pure: the plan is data that is printed, asked about, or applied. */
import { changedSections, fingerprintOf } from './fingerprint.ts';
import { isAside, OBJECT_ORIGIN } from '../model/names.ts';
import type {
  ContainerResource,
  Deed,
  ObservedResource,
  ObservedState,
  Plan,
  Resource,
  ResourceId,
  Step,
} from '../model/resources.ts';

/**
 * Compares and plans. Same fingerprint and running: no step but the wait that proves it. `scope` holds the kinds that
 * were observed: an observed resource of these kinds that is not desired is removed.
 */
export function plan(desired: readonly Resource[], observed: ObservedState): Plan {
  const desiredIds = new Set(desired.map((resource) => resource.id));
  const orphans = [...observed.values()].filter((resource) => !desiredIds.has(resource.id));
  const decisions = decide(desired, observed);
  const removals = [
    ...orphans.map((orphan) => removal(orphan, 'no longer wanted', holdsData(orphan))),
    ...desired.flatMap((resource) => {
      const decision = decisions.get(resource.id);
      return decision?.verb === 'replace' ? [removal(decision.observed, decision.cause, false)] : [];
    }),
  ];
  const additions = desired.flatMap((resource) => stepsFor(resource, decisions.get(resource.id)));
  return inOrder(link([...removals, ...additions], desired));
}

/** True when nothing would change: every step only waits. */
export function isConverged(steps: Plan): boolean {
  return steps.every((step) => step.verb === 'wait');
}

/** True of a step that has a container run which nobody waits for. */
export function isForLater(step: Step): boolean {
  const isStart = step.verb === 'create' || step.verb === 'start';
  return isStart && step.resource.kind === 'container' && isAside(step.owner);
}

/** One line a step, as `--dry-run` prints it. */
export function formatPlan(steps: Plan): string {
  return steps
    .filter((step) => step.verb !== 'wait')
    .map((step) => `${step.id} (${step.cause})${step.losesData ? ' — loses data' : ''}`)
    .join('\n');
}

/** What these own are records of wishes: the files of mounts are the host's. */
const RECORDED: readonly string[] = ['mounts', 'ports'];

/** Containers, networks and objects of our own are made anew as they were. */
function holdsData({ kind, owner, object }: ObservedResource): boolean {
  const isBuiltIn = object?.metadata.labels?.[OBJECT_ORIGIN] === 'built-in';
  return !['container', 'network', 'attachment'].includes(kind) && !RECORDED.includes(owner) && !isBuiltIn;
}

/** Goes on last, so that what the others have to say after a long pause is there when it looks whether they live. */
export const CONTROL_PLANE = 'container/control-plane';

type Decision =
  | { readonly verb: 'keep' }
  | { readonly verb: 'create'; readonly cause: string }
  | { readonly verb: 'update'; readonly cause: string }
  | { readonly verb: 'start' | 'resume'; readonly cause: string; readonly observed: ObservedResource }
  | { readonly verb: 'replace'; readonly cause: string; readonly observed: ObservedResource };

function decide(desired: readonly Resource[], observed: ObservedState): ReadonlyMap<ResourceId, Decision> {
  const decisions = new Map<ResourceId, Decision>();
  for (const resource of desired) {
    const own = compare(resource, observed.get(resource.id));
    const needs = resource.dependsOn.map((id) => ({ id, verb: decisions.get(id)?.verb }));
    const found = observed.get(resource.id);
    // A network can only be removed when nothing is attached to it.
    const isMoved = needs.some(({ id, verb }) => id === 'network' && verb !== undefined && verb !== 'keep');
    const isLost = needs.some(({ id, verb }) => id !== 'network' && (verb === 'create' || verb === 'replace'));
    if (resource.kind === 'container' && isMoved && found !== undefined && own.verb !== 'replace') {
      decisions.set(resource.id, { verb: 'replace', cause: 'its network is new', observed: found });
    } else if (resource.kind === 'attachment' && isMoved && found !== undefined) {
      decisions.set(resource.id, { verb: 'replace', cause: 'the network is new', observed: found });
    } else if (resource.kind === 'attachment' && isLost && found?.ref === resource.containerName) {
      decisions.set(resource.id, { verb: 'create', cause: 'its container is new' });
    } else {
      decisions.set(resource.id, own);
    }
  }
  return decisions;
}

function compare(resource: Resource, observed: ObservedResource | undefined): Decision {
  if (observed === undefined) return { verb: 'create', cause: 'missing' };
  const changed = changedSections(fingerprintOf(resource), observed.fingerprint);
  if (resource.kind === 'object' || resource.kind === 'bucket') {
    return changed.length === 0 ? { verb: 'keep' } : { verb: 'update', cause: 'differs from what is wanted' };
  }
  if (resource.kind === 'container' && observed.containerState === 'created') {
    return { verb: 'replace', cause: 'an earlier run was interrupted', observed };
  }
  if (changed.length > 0) return { verb: 'replace', cause: `${changed.join(', ')} changed`, observed };
  if (
    resource.kind === 'container' &&
    (observed.address ?? resource.container.address) !== resource.container.address
  ) {
    return { verb: 'replace', cause: 'it is off its network', observed };
  }
  if (resource.kind !== 'container' || observed.containerState === 'running') return { verb: 'keep' };
  if (observed.containerState === 'paused') return { verb: 'resume', cause: 'it is paused', observed };
  // A container that restarts over and over is started anew too: the wait then tells why it does not stay up.
  return { verb: 'start', cause: `it is ${observed.containerState ?? 'stopped'}`, observed };
}

function stepsFor(resource: Resource, decision: Decision | undefined): readonly Step[] {
  const steps: Step[] = [];
  const base = { owner: resource.owner, dependsOn: [], losesData: false };
  switch (decision?.verb) {
    case 'create':
    case 'replace':
      steps.push({ ...base, verb: 'create', id: `create ${resource.id}`, cause: decision.cause, resource });
      break;
    case 'update':
      steps.push({ ...base, verb: 'update', id: `update ${resource.id}`, cause: decision.cause, resource });
      break;
    case 'start':
      if (resource.kind === 'container') {
        const { cause, observed } = decision;
        steps.push({ ...base, verb: 'start', id: `start ${resource.id}`, cause, resource, observed });
      }
      break;
    case 'resume':
      steps.push(resumption(decision.observed, decision.cause));
      break;
    case 'keep':
    case undefined:
      break;
  }
  if (resource.kind === 'container' && resource.probes.length > 0 && !isAside(resource.owner))
    steps.push(waitFor(resource));
  return steps;
}

function waitFor(resource: ContainerResource): Step {
  return {
    verb: 'wait',
    id: `wait ${resource.id}`,
    owner: resource.owner,
    cause: 'it has to answer',
    dependsOn: [],
    losesData: false,
    resource,
  };
}

/** Lets a frozen container go on. */
export function resumption(observed: ObservedResource, cause: string): Deed {
  const { id, owner } = observed;
  return { verb: 'resume', id: `resume ${id}`, owner, cause, dependsOn: [], losesData: false, observed };
}

function removal(observed: ObservedResource, cause: string, losesData: boolean): Step {
  return {
    verb: 'remove',
    id: `remove ${observed.id}`,
    owner: observed.owner,
    cause,
    dependsOn: [],
    losesData,
    observed,
  };
}

/** Fills in `dependsOn`: own removal before creation, containers off a network before it goes, dependencies first. */
function link(steps: readonly Step[], desired: readonly Resource[]): Plan {
  const ids = new Set(steps.map((step) => step.id));
  const containerRemovals = steps
    .filter((step) => step.verb === 'remove' && ['container', 'attachment'].includes(step.observed.kind))
    .map((step) => step.id);
  const existing = (...candidates: readonly string[]): readonly string[] => candidates.filter((id) => ids.has(id));
  const resumptions = steps.filter((step) => step.verb === 'resume').map((step) => step.id);
  const resourcesById = new Map(desired.map((resource) => [resource.id, resource]));
  const readiness = (id: ResourceId): readonly string[] =>
    existing(`create ${id}`, `update ${id}`, `start ${id}`, `resume ${id}`, ...(needsReady(id) ? [`wait ${id}`] : []));
  return steps.map((step) => {
    if (step.verb === 'remove') {
      const waitsForContainers = step.observed.kind === 'network' || step.observed.kind === 'volume';
      return { ...step, dependsOn: waitsForContainers ? containerRemovals : [] };
    }
    if (step.verb === 'roll') return step;
    const { id } = 'resource' in step ? step.resource : step.observed;
    if (id === CONTROL_PLANE && step.verb === 'resume') {
      return { ...step, dependsOn: resumptions.filter((other) => other !== step.id) };
    }
    const needs = (resourcesById.get(id)?.dependsOn ?? []).flatMap(readiness);
    // A container that stays as it is may have to answer for something that changes, as a mount's for its record.
    if (step.verb === 'wait') {
      return { ...step, dependsOn: [...existing(`create ${id}`, `start ${id}`, `resume ${id}`), ...needs] };
    }
    return { ...step, dependsOn: [...existing(`remove ${id}`), ...needs] };
  });
}

/** Buckets and objects need a container that answers; containers only need that networks and volumes exist. */
function needsReady(id: ResourceId): boolean {
  return id.startsWith('container/');
}

/** Topological order, stable otherwise. */
function inOrder(steps: Plan): Plan {
  const done = new Set<string>();
  const ordered: Step[] = [];
  let open = [...steps];
  while (open.length > 0) {
    const ready = open.filter((step) => step.dependsOn.every((id) => done.has(id)));
    if (ready.length === 0) throw new Error(`steps depend on each other: ${open.map((step) => step.id).join(', ')}`);
    for (const step of ready) {
      done.add(step.id);
      ordered.push(step);
    }
    open = open.filter((step) => !done.has(step.id));
  }
  return ordered;
}
