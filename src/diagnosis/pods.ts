/** Why a pod is not well, in one line; pods of one workload that suffer the same are told of together. */
import { counted, describeCommand, oneLine, type Check } from './check.ts';
import { explainContainers } from './containers.ts';
import { createCommand, lastEventOf, nameOfKind, PATIENCE_MS, type Explanation, type World } from './explanation.ts';
import { conditionOf, type Pod } from './kubernetes.ts';
import { explainUnscheduled } from './scheduling.ts';

export function checkPods(world: World): readonly Check[] {
  const found = world.objects.pods.flatMap((pod) => {
    const explanation = explainPod(pod, world);
    return explanation === undefined ? [] : [{ pod, explanation }];
  });
  const groups = new Map<string, typeof found>();
  for (const one of found) {
    const key = `${one.pod.metadata.namespace ?? ''} ${ownerOf(one.pod)} ${one.explanation.message}`;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  return [...groups.values()].flatMap(([first, ...rest]): readonly Check[] => {
    if (first === undefined) return [];
    const { name, namespace = 'default' } = first.pod.metadata;
    const others = rest.length === 0 ? '' : ` and ${counted(rest.length, 'other')} of its workload`;
    return [{ severity: 'error', subject: `pod ${namespace}/${name}${others}`, ...first.explanation }];
  });
}

/** Undefined for a pod that is well, or may still become so. */
export function explainPod(pod: Pod, world: World): Explanation | undefined {
  const phase = pod.status?.phase;
  if (pod.metadata.deletionTimestamp !== undefined) return explainTermination(pod, world);
  if (phase === 'Succeeded') return undefined;
  if (phase === 'Failed') return explainFailure(pod, world);
  if (pod.spec?.nodeName === undefined) return explainUnscheduled(pod, world.objects);
  return explainContainers(pod, world) ?? explainStart(pod, world) ?? explainGates(pod);
}

function explainTermination(pod: Pod, { objects, nowMs }: World): Explanation | undefined {
  const { name, namespace = 'default', deletionTimestamp = '', finalizers = [] } = pod.metadata;
  // The time of deletion includes the grace period.
  if (nowMs - Date.parse(deletionTimestamp) < PATIENCE_MS) return undefined;
  if (finalizers.length > 0) {
    return {
      id: 'pod.terminating',
      message: `it was deleted, and the finalizer ${finalizers.join(', ')} keeps it`,
      fix: `sandbar kubectl patch pod ${name} -n ${namespace} --type=merge -p '{"metadata":{"finalizers":null}}'`,
    };
  }
  const [node] = objects.nodes;
  const isNodeReady = node !== undefined && conditionOf(node, 'Ready')?.status === 'True';
  return {
    id: 'pod.terminating',
    message: isNodeReady
      ? 'it was deleted, and its containers do not end'
      : 'it was deleted, and the node is not ready',
    fix: `sandbar kubectl delete pod ${name} -n ${namespace} --force --grace-period=0`,
  };
}

function explainFailure(pod: Pod, world: World): Explanation | undefined {
  const { name, namespace = 'default' } = pod.metadata;
  // What becomes of a Job's pods is told of the Job.
  if (pod.metadata.ownerReferences?.some(({ kind }) => kind === 'Job') === true) return undefined;
  const { reason, message } = pod.status ?? {};
  if (reason !== undefined) {
    return {
      id: 'pod.failed',
      message: `it failed: ${reason}${message === undefined ? '' : `: ${oneLine(message)}`}`,
      fix: `sandbar kubectl delete pod ${name} -n ${namespace}`,
    };
  }
  return explainContainers(pod, world);
}

/** Containers that are not made yet: volumes, the network of the pod. */
function explainStart(pod: Pod, world: World): Explanation | undefined {
  const { name, namespace = 'default' } = pod.metadata;
  const isStarted = (pod.status?.containerStatuses ?? []).some(({ state }) => state?.waiting === undefined);
  if (isStarted) return undefined;
  const mount = lastEventOf(pod, ['FailedMount', 'FailedAttachVolume', 'FailedMapVolume'], world);
  if (mount !== undefined) return explainMount(mount, pod);
  const sandbox = lastEventOf(pod, ['FailedCreatePodSandBox', 'NetworkNotReady', 'FailedCreatePodContainer'], world);
  if (sandbox !== undefined) {
    return {
      id: 'pod.sandbox',
      message: 'the node cannot make it',
      cause: oneLine(sandbox),
      fix: 'sandbar logs agent --tail 50',
    };
  }
  if (world.nowMs - Date.parse(pod.metadata.creationTimestamp ?? '') < 4 * PATIENCE_MS) return undefined;
  const isInitializing = (pod.status?.initContainerStatuses ?? []).some(({ state }) => state?.running !== undefined);
  if (isInitializing) return undefined;
  return {
    id: 'pod.start',
    severity: 'warning',
    message: 'its containers have not been made yet, and nothing says why',
    fix: describeCommand('pod', name, namespace),
  };
}

function explainMount(message: string, pod: Pod): Explanation {
  const { name, namespace = 'default' } = pod.metadata;
  const [, volume] = /for volume "([^"]+)"/.exec(message) ?? [];
  const [, kind, missing] = /\b(secret|configmap) "([^"]+)" not found/i.exec(message) ?? [];
  if (kind !== undefined && missing !== undefined) {
    return {
      id: 'pod.reference',
      message: `its volume "${volume ?? ''}" wants the ${nameOfKind(kind)} "${missing}", and there is none of that name`,
      fix: createCommand(kind, missing, namespace),
    };
  }
  return {
    id: 'pod.volume',
    message: `its volume "${volume ?? ''}" cannot be mounted`,
    cause: oneLine(message.replace(/^MountVolume\.SetUp failed for volume "[^"]*" : /, '')),
    fix: describeCommand('pod', name, namespace),
  };
}

function explainGates(pod: Pod): Explanation | undefined {
  const missing = (pod.spec?.readinessGates ?? []).filter(
    ({ conditionType }) => conditionOf(pod, conditionType)?.status !== 'True',
  );
  if (missing.length === 0 || conditionOf(pod, 'ContainersReady')?.status !== 'True') return undefined;
  return {
    id: 'pod.gate',
    severity: 'warning',
    message: `its readiness gate ${missing.map(({ conditionType }) => conditionType).join(', ')} is not true`,
    fix: 'look at the controller that sets it',
  };
}

function ownerOf(pod: Pod): string {
  const [owner] = pod.metadata.ownerReferences ?? [];
  return owner === undefined ? pod.metadata.name : `${owner.kind}/${owner.name}`;
}
