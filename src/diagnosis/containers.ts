/** Why a container of a pod does not run or is not ready, told from its status and what was last heard of it. */
import { lastPart, oneLine } from './check.ts';
import type { Container, ContainerStatus, Pod } from './kubernetes.ts';
import {
  createCommand,
  keyOf,
  lastEventOf,
  nameOfKind,
  PATIENCE_MS,
  type Explanation,
  type Subject,
  type World,
} from './explanation.ts';
import { explainImage } from './image.ts';

/** After this many restarts in a row a container is no longer just starting. */
const RESTARTS_TOLD = 2;

/** Running for so long, it is not about to end again. */
const SETTLED_MS = 60_000;

/** An end that lies further back is history. */
const RECENT_MS = 10 * 60_000;

/** The first container that has something to be said of. */
export function explainContainers(pod: Pod, world: World): Explanation | undefined {
  const { spec, status } = pod;
  const subjectsOf = (
    statuses: readonly ContainerStatus[] = [],
    containers: readonly Container[] = [],
    isInit: boolean,
  ): readonly Subject[] =>
    statuses.map((one) => ({
      pod,
      status: one,
      container: containers.find(({ name }) => name === one.name),
      isInit,
      world,
    }));
  const subjects = [
    ...subjectsOf(status?.initContainerStatuses, spec?.initContainers, true),
    ...subjectsOf(status?.containerStatuses, spec?.containers, false),
  ];
  for (const subject of subjects) {
    const explanation = explainWaiting(subject) ?? explainEnd(subject) ?? explainRunning(subject);
    if (explanation !== undefined) return explanation;
  }
  return undefined;
}

/** Containers whose last words explain them. */
export function wantsLastLine(status: ContainerStatus, { isInit }: { readonly isInit: boolean }): boolean {
  const { state = {}, lastState = {} } = status;
  const hasFailed = endOf(status) !== undefined && endOf(status)?.exitCode !== 0;
  return hasFailed || (isInit && state.running !== undefined && lastState.terminated === undefined);
}

function explainWaiting(subject: Subject): Explanation | undefined {
  const { reason = '', message = '' } = subject.status.state?.waiting ?? {};
  switch (reason) {
    case 'ErrImagePull':
    case 'ImagePullBackOff':
    case 'ErrImageNeverPull':
    case 'ImageInspectError':
    case 'RegistryUnavailable':
      return explainImage(subject, message);
    case 'InvalidImageName':
      return {
        id: 'pod.image',
        message: `"${subject.container?.image ?? ''}" is no name of an image`,
        fix: `correct image of container ${subject.status.name}: NAME:TAG in lower case`,
      };
    case 'CreateContainerConfigError':
      return explainReference(subject, message);
    case 'CreateContainerError':
    case 'RunContainerError':
      return explainStartError(subject, message);
    default:
      return undefined;
  }
}

function explainReference({ pod, status }: Subject, message: string): Explanation {
  const { namespace = 'default' } = pod.metadata;
  const base = { id: 'pod.reference' };
  const [, kind, missing] = /\b(secret|configmap) "([^"]+)" not found/i.exec(message) ?? [];
  if (kind !== undefined && missing !== undefined) {
    return {
      ...base,
      message: `container ${status.name} wants the ${nameOfKind(kind)} "${missing}", and there is none of that name`,
      fix: createCommand(kind, missing, namespace),
    };
  }
  const [, key, ofKind = '', place = ''] = /couldn't find key (\S+) in (\w+) (\S+)/.exec(message) ?? [];
  if (key !== undefined) {
    const name = place.replace(/^.*\//, '');
    return {
      ...base,
      message: `container ${status.name} wants the key "${key}" of ${nameOfKind(ofKind)} "${name}", which does not have it`,
      fix: `sandbar kubectl edit ${ofKind.toLowerCase()} ${name} -n ${namespace}`,
    };
  }
  return {
    ...base,
    message: `container ${status.name} cannot be made: ${oneLine(message)}`,
    fix: `correct container ${status.name} of the pod`,
  };
}

/** The container runtime's refusal to start the program. */
function explainStartError(subject: Subject, message: string): Explanation {
  const { status, container } = subject;
  const reason = oneLine(lastPart(message));
  if (isForeignFormat(message)) return foreignImage(container);
  const mount = /live mount .*$/s.exec(message)?.[0];
  if (mount !== undefined) {
    return {
      id: 'pod.mount',
      message: `container ${status.name} cannot start: ${oneLine(mount)}`,
      fix: 'sandbar up (sandbar mounts shows the state of every mount)',
      repair: { kind: 'up' },
    };
  }
  if (/executable file .*not found|no such file or directory/i.test(message)) {
    return {
      id: 'pod.command',
      message: `container ${status.name} cannot start: ${reason}`,
      fix: `correct command of container ${status.name}: image ${container?.image ?? ''} has no such program`,
    };
  }
  return {
    id: 'pod.start',
    message: `container ${status.name} cannot start: ${reason}`,
    fix: logsCommand(subject),
  };
}

/** A container that ended, and is started over and over. */
function explainEnd(subject: Subject): Explanation | undefined {
  const { pod, status, container, isInit, world } = subject;
  const end = endOf(status);
  if (end === undefined) return undefined;
  const startedAt = status.state?.running?.startedAt;
  // One that ends over and over runs in between: only time tells that it does so no more.
  const isSettled =
    startedAt !== undefined &&
    ((status.restartCount ?? 0) < RESTARTS_TOLD || world.nowMs - Date.parse(startedAt) > SETTLED_MS);
  if (isSettled || (startedAt !== undefined && !isRecent(end.finishedAt, world))) {
    const isWarned = end.reason === 'OOMKilled' && isRecent(end.finishedAt, world);
    return isWarned ? { ...outOfMemory(subject), severity: 'warning' } : undefined;
  }
  const isBackingOff = status.state?.waiting?.reason === 'CrashLoopBackOff';
  const mayEnd = isInit || (pod.spec?.restartPolicy ?? 'Always') !== 'Always';
  if (end.exitCode === 0 && (mayEnd || !isBackingOff)) return undefined;
  if (end.reason === 'OOMKilled') return outOfMemory(subject);
  if (end.reason === 'StartError' || end.reason === 'ContainerCannotRun') {
    return explainStartError(subject, end.message ?? '');
  }
  const line = world.lastLines.get(keyOf(pod, status.name)) ?? end.message;
  if (line !== undefined && isForeignFormat(line)) return foreignImage(container);
  const liveness = probeFailure(subject, 'Liveness') ?? probeFailure(subject, 'Startup');
  if (end.exitCode !== 0 && liveness !== undefined && (end.exitCode === 137 || end.exitCode === 143)) {
    return liveness;
  }
  const again = (status.restartCount ?? 0) > 0 ? `, after ${restarts(status)}` : '';
  return {
    id: 'pod.crash',
    message: `${isInit ? 'init ' : ''}container ${status.name} ended with exit code ${String(end.exitCode)}${again}${
      line === undefined ? '' : `: ${oneLine(line, 160)}`
    }`,
    fix: logsCommand(subject),
  };
}

function explainRunning(subject: Subject): Explanation | undefined {
  const { status, isInit, container, world, pod } = subject;
  const startedAt = status.state?.running?.startedAt;
  if (startedAt === undefined || world.nowMs - Date.parse(startedAt) < PATIENCE_MS) return undefined;
  if (isInit && container?.restartPolicy !== 'Always') {
    const line = world.lastLines.get(keyOf(pod, status.name));
    const seconds = Math.round((world.nowMs - Date.parse(startedAt)) / 1000);
    return {
      id: 'pod.init',
      severity: 'warning',
      message: `init container ${status.name} has run for ${String(seconds)} s and does not end${
        line === undefined ? '' : `: ${oneLine(line, 160)}`
      }`,
      fix: logsCommand(subject),
    };
  }
  if (status.ready === true && !isInit) return undefined;
  return probeFailure(subject, 'Startup') ?? (isInit ? undefined : probeFailure(subject, 'Readiness'));
}

function probeFailure(subject: Subject, kind: 'Liveness' | 'Readiness' | 'Startup'): Explanation | undefined {
  const { pod, status, world } = subject;
  const own = world.objects.events.filter(({ message = '' }) => message.startsWith(`${kind} probe `));
  const message = lastEventOf(pod, ['Unhealthy', 'ProbeError'], {
    ...world,
    objects: { ...world.objects, events: own },
  });
  if (message === undefined) return undefined;
  const answer = oneLine(message.replace(/^\w+ probe (?:failed|errored)[^:]*:\s*/, '').trim(), 160);
  const outcome = kind === 'Readiness' ? 'it is not ready' : 'it is restarted';
  return {
    id: 'pod.probe',
    message: `the ${kind.toLowerCase()} probe of container ${status.name} fails, so ${outcome}${
      answer === '' ? '' : `: ${answer}`
    }`,
    fix: `correct ${kind.toLowerCase()}Probe of container ${status.name}, or look at what it says: ${logsCommand(subject)}`,
  };
}

function outOfMemory({ status, container }: Subject): Explanation {
  const limit = container?.resources?.limits?.['memory'];
  return {
    id: 'pod.memory',
    message: `container ${status.name} was killed for using more memory than ${
      limit === undefined ? 'the engine has' : `its limit of ${limit}`
    }${(status.restartCount ?? 0) > 0 ? `, after ${restarts(status)}` : ''}`,
    fix:
      limit === undefined
        ? 'give the engine more memory, or the container a limit'
        : `raise resources.limits.memory of container ${status.name}`,
  };
}

function foreignImage(container: Container | undefined): Explanation {
  const image = container?.image ?? '';
  return {
    id: 'pod.architecture',
    message: `image ${image} is made for another architecture than the node's`,
    fix: `docker build -t ${image} . on this machine (or docker pull --platform), then sandbar image load ${image}`,
  };
}

function endOf({ state = {}, lastState = {} }: ContainerStatus) {
  return state.terminated ?? lastState.terminated;
}

function isRecent(time: string | undefined, { nowMs }: World): boolean {
  return time !== undefined && nowMs - Date.parse(time) < RECENT_MS;
}

function isForeignFormat(text: string): boolean {
  return /exec format error|exec user process.*format/i.test(text);
}

function restarts({ restartCount = 0 }: ContainerStatus): string {
  return restartCount === 1 ? '1 restart' : `${String(restartCount)} restarts`;
}

function logsCommand({ pod, status }: Subject): string {
  const { name, namespace = 'default' } = pod.metadata;
  const hasEnded = status.state?.running !== undefined && status.lastState?.terminated !== undefined;
  return `sandbar kubectl logs ${name} -n ${namespace} -c ${status.name}${hasEnded ? ' --previous' : ''}`;
}
