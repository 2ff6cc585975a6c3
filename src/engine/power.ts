/** Plans that change whether a cluster's containers run, and nothing of what they are. Pure. */
import { COMPONENTS } from '../model/names.ts';
import type { Deed, ObservedResource, ObservedState, Owner, Probed, Step } from '../model/resources.ts';
import { CONTROL_PLANE, resumption } from './plan.ts';

/** Other containers of a cluster serve for a moment; one that is left over is no part, and must not begin to run. */
const PARTS: readonly Owner[] = [...COMPONENTS, 'mounts'];

/** Steps in an order in which every step stands after those it depends on. */
export type PowerPlan = readonly (Deed | Extract<Step, { readonly verb: 'wait' }>)[];

/** All at once, as the engine does when it ends itself, and what is left over too. What is frozen could not end by itself: it goes on first. */
export function planStop(observed: ObservedState): PowerPlan {
  const paused = containersIn(observed, ['paused']).map((container) => resumption(container, 'to end by itself'));
  const up = containersIn(observed, ['running', 'restarting', 'paused']);
  const resumed = new Set(paused.map(({ id }) => id));
  const stops = up.map((container) =>
    deed(
      'stop',
      container,
      'asked for',
      [`resume ${container.id}`].filter((id) => resumed.has(id)),
    ),
  );
  return [...paused, ...stops];
}

/** The control plane last: until then the others may ask it something. */
export function planPause(observed: ObservedState): PowerPlan {
  const [others, controlPlane] = controlPlaneApart(partsIn(observed, ['running', 'restarting']));
  const steps = others.map((container) => deed('pause', container, 'asked for', []));
  const before = steps.map(({ id }) => id);
  return [...steps, ...controlPlane.map((container) => deed('pause', container, 'asked for', before))];
}

/** The control plane last: then it finds what the agent has to say, and does not take it for dead. */
export function planResume(observed: ObservedState, awaited: readonly Probed[]): PowerPlan {
  const [others, controlPlane] = controlPlaneApart(partsIn(observed, ['paused']));
  const steps = others.map((container) => resumption(container, 'asked for'));
  const before = steps.map(({ id }) => id);
  const all = [
    ...steps,
    ...controlPlane.map((container) => ({ ...resumption(container, 'asked for'), dependsOn: before })),
  ];
  return all.length === 0 ? [] : [...all, ...waits(all, awaited)];
}

export type RestartWish = {
  readonly component: string | undefined;
  /** Ids of containers that stay as they are. */
  readonly leftOut: ReadonlySet<string>;
  readonly awaited: readonly Probed[];
};

/** The containers of a component, or all; the cluster has to answer afterwards. */
export function planRestart(observed: ObservedState, { component, leftOut, awaited }: RestartWish): PowerPlan {
  const steps = [...observed.values()]
    .filter(isPart)
    .filter(({ id, owner }) => (component === undefined || owner === component) && !leftOut.has(id))
    .map((container) => deed('restart', container, 'asked for', []));
  return [...steps, ...waits(steps, awaited)];
}

function deed(verb: Deed['verb'], observed: ObservedResource, cause: string, dependsOn: readonly string[]): Deed {
  const { id, owner } = observed;
  return { verb, id: `${verb} ${id}`, owner, cause, dependsOn, losesData: false, observed };
}

function waits(steps: PowerPlan, awaited: readonly Probed[]): PowerPlan {
  const dependsOn = steps.map(({ id }) => id);
  const base = { cause: 'it has to answer', dependsOn, losesData: false } as const;
  return awaited.map((resource) => ({
    ...base,
    verb: 'wait',
    id: `wait ${resource.id}`,
    owner: resource.owner,
    resource,
  }));
}

function containersIn(
  observed: ObservedState,
  states: readonly ObservedResource['containerState'][],
): readonly ObservedResource[] {
  return [...observed.values()].filter(
    ({ kind, containerState }) => kind === 'container' && states.includes(containerState),
  );
}

function partsIn(...found: Parameters<typeof containersIn>): readonly ObservedResource[] {
  return containersIn(...found).filter(isPart);
}

function isPart({ kind, owner }: ObservedResource): boolean {
  return kind === 'container' && PARTS.includes(owner);
}

function controlPlaneApart(
  containers: readonly ObservedResource[],
): readonly [others: readonly ObservedResource[], controlPlane: readonly ObservedResource[]] {
  const isControlPlane = ({ id }: ObservedResource): boolean => id === CONTROL_PLANE;
  return [containers.filter((container) => !isControlPlane(container)), containers.filter(isControlPlane)];
}
