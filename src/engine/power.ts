/** Plans that change whether a cluster's containers run, and nothing of what they are. Pure. */
import type { Deed, ObservedResource, ObservedState, Probed, Step } from '../model/resources.ts';
import { CONTROL_PLANE, resumption } from './plan.ts';

/** Steps in an order in which every step stands after those it depends on. */
export type PowerPlan = readonly (Deed | Extract<Step, { readonly verb: 'wait' }>)[];

/** All at once, as the engine does when it ends itself. What is frozen could not end by itself: it goes on first. */
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
  const [others, controlPlane] = controlPlaneApart(containersIn(observed, ['running', 'restarting']));
  const steps = others.map((container) => deed('pause', container, 'asked for', []));
  const before = steps.map(({ id }) => id);
  return [...steps, ...controlPlane.map((container) => deed('pause', container, 'asked for', before))];
}

/** The control plane last: then it finds what the agent has to say, and does not take it for dead. */
export function planResume(observed: ObservedState, awaited: readonly Probed[]): PowerPlan {
  const [others, controlPlane] = controlPlaneApart(containersIn(observed, ['paused']));
  const steps = others.map((container) => resumption(container, 'asked for'));
  const before = steps.map(({ id }) => id);
  const all = [
    ...steps,
    ...controlPlane.map((container) => ({ ...resumption(container, 'asked for'), dependsOn: before })),
  ];
  return all.length === 0 ? [] : [...all, ...waits(all, awaited)];
}

/** The containers of a component, or all; the cluster has to answer afterwards. */
export function planRestart(
  observed: ObservedState,
  { component, awaited }: { readonly component: string | undefined; readonly awaited: readonly Probed[] },
): PowerPlan {
  const steps = [...observed.values()]
    .filter(({ kind, owner }) => kind === 'container' && (component === undefined || owner === component))
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

function controlPlaneApart(
  containers: readonly ObservedResource[],
): readonly [others: readonly ObservedResource[], controlPlane: readonly ObservedResource[]] {
  const isControlPlane = ({ id }: ObservedResource): boolean => id === CONTROL_PLANE;
  return [containers.filter((container) => !isControlPlane(container)), containers.filter(isControlPlane)];
}
