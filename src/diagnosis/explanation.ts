/** What pods are explained from, and what an explanation is. */
import type { Repair, Severity } from './check.ts';
import { eventTimeMs, type Container, type ContainerStatus, type Objects, type Pod } from './kubernetes.ts';

export type Explanation = {
  readonly id: string;
  readonly message: string;
  readonly cause?: string;
  readonly fix: string;
  readonly repair?: Repair;
  /** An error where it is left out. */
  readonly severity?: Severity;
};

/** What pods are explained from. */
export type World = {
  readonly objects: Objects;
  /** Of the machine that the command runs on. */
  readonly nowMs: number;
  /** Images that pods lack, as they name them, which the engine has. */
  readonly engineImages: ReadonlySet<string>;
  /** Names of the images on the node, whole; undefined where it cannot be asked. */
  readonly nodeImages: ReadonlySet<string> | undefined;
  /** `namespace/pod/container` → the last line that it said. */
  readonly lastLines: ReadonlyMap<string, string>;
};

/** How long things may take that mostly take a second: before, nothing is said of them. */
export const PATIENCE_MS = 15_000;

/** The kubelet asks the container runtime for nothing more often; older events tell of what is over. */
const EVENT_AGE_MS = 10 * 60_000;

/** A container of a pod, with its place. */
export type Subject = {
  readonly pod: Pod;
  readonly status: ContainerStatus;
  readonly container: Container | undefined;
  readonly isInit: boolean;
  readonly world: World;
};

/** The newest message of an event about the object, for one of these reasons. */
export function lastEventOf(
  pod: Pod,
  reasons: readonly string[],
  { objects, nowMs }: Pick<World, 'objects' | 'nowMs'>,
): string | undefined {
  const [event] = objects.events
    .filter(
      ({ involvedObject: { kind, name, namespace }, reason = '' }) =>
        kind === 'Pod' &&
        name === pod.metadata.name &&
        namespace === pod.metadata.namespace &&
        reasons.includes(reason),
    )
    .filter((candidate) => nowMs - eventTimeMs(candidate) < EVENT_AGE_MS)
    .toSorted((a, b) => eventTimeMs(b) - eventTimeMs(a));
  return event?.message;
}

export function nameOfKind(kind: string): string {
  return kind.toLowerCase() === 'secret' ? 'Secret' : 'ConfigMap';
}

/** Command that makes what a pod refers to. */
export function createCommand(kind: string, name: string, namespace: string): string {
  const word = kind.toLowerCase() === 'secret' ? 'secret generic' : 'configmap';
  return `sandbar kubectl create ${word} ${name} -n ${namespace} --from-literal=KEY=VALUE`;
}

/** Key of `lastLines`. */
export function keyOf(pod: Pod, container: string): string {
  return `${pod.metadata.namespace ?? 'default'}/${pod.metadata.name}/${container}`;
}
