/** Why a pod has no node yet, told from the node, the other pods and the claims; the scheduler's own words else. */
import { describeCommand, oneLine } from './check.ts';
import { explainClaim } from './claims.ts';
import {
  conditionOf,
  formatQuantity,
  parseQuantity,
  type Container,
  type Node,
  type Objects,
  type Pod,
  type Quantities,
} from './kubernetes.ts';
import type { Explanation } from './explanation.ts';

/** Undefined while the scheduler has not looked at the pod yet. */
export function explainUnscheduled(pod: Pod, objects: Objects): Explanation | undefined {
  const { name, namespace } = pod.metadata;
  const gates = pod.spec?.schedulingGates ?? [];
  if (gates.length > 0) {
    return {
      id: 'pod.scheduling',
      message: `it is held back by the scheduling gate ${gates.map((gate) => gate.name).join(', ')}`,
      fix: 'whoever set the gate has to remove it from spec.schedulingGates',
    };
  }
  const condition = conditionOf(pod, 'PodScheduled');
  const scheduler = pod.spec?.schedulerName ?? 'default-scheduler';
  if (condition === undefined) {
    if (scheduler === 'default-scheduler') return undefined;
    return {
      id: 'pod.scheduling',
      message: `nothing schedules it: there is no scheduler of the name ${scheduler}`,
      fix: 'remove spec.schedulerName from the pod',
    };
  }
  const [node] = objects.nodes;
  if (node === undefined) {
    return { id: 'pod.scheduling', message: 'there is no node: its Node object was deleted', fix: 'sandbar up' };
  }
  return (
    explainClaims(pod, objects) ??
    explainTaint(pod, node) ??
    explainSelector(pod, node) ??
    explainHostPort(pod, objects.pods) ??
    explainResources(pod, node, objects.pods) ?? {
      id: 'pod.scheduling',
      message: `no node takes it: ${oneLine(withoutPreemption(condition.message ?? 'the scheduler does not say why'))}`,
      fix: describeCommand('pod', name, namespace),
    }
  );
}

function explainClaims(pod: Pod, objects: Objects): Explanation | undefined {
  for (const volume of pod.spec?.volumes ?? []) {
    const claimName = volume.persistentVolumeClaim?.claimName;
    if (claimName === undefined) continue;
    const claim = objects.claims.find(
      ({ metadata }) => metadata.name === claimName && metadata.namespace === pod.metadata.namespace,
    );
    if (claim === undefined) {
      return {
        id: 'pod.claim',
        message: `its volume "${volume.name}" wants the claim "${claimName}", and there is none of that name`,
        fix: `create the PersistentVolumeClaim ${claimName} in namespace ${pod.metadata.namespace ?? 'default'}`,
      };
    }
    const problem = explainClaim(claim, objects);
    if (problem !== undefined) {
      return {
        id: 'pod.claim',
        message: `its claim "${claimName}" is not bound: ${problem.message}`,
        fix: problem.fix,
      };
    }
  }
  return undefined;
}

function explainTaint(pod: Pod, node: Node): Explanation | undefined {
  const tolerations = pod.spec?.tolerations ?? [];
  const taint = (node.spec?.taints ?? []).find(
    ({ key, value = '', effect }) =>
      effect !== 'PreferNoSchedule' &&
      !tolerations.some(
        (toleration) =>
          (toleration.effect === undefined || toleration.effect === effect) &&
          (toleration.key === undefined || toleration.key === key) &&
          (toleration.operator === 'Exists' || (toleration.value ?? '') === value),
      ),
  );
  if (taint === undefined) return undefined;
  const { key, value, effect } = taint;
  if (key === 'node.kubernetes.io/unschedulable') {
    return {
      id: 'pod.taint',
      message: 'the node is cordoned',
      fix: `sandbar kubectl uncordon ${node.metadata.name}`,
    };
  }
  const text = `${key}${value === undefined ? '' : `=${value}`}:${effect}`;
  if (key.startsWith('node.kubernetes.io/')) {
    return { id: 'pod.taint', message: `the node keeps pods away (${text})`, fix: 'sandbar logs agent --tail 20' };
  }
  return {
    id: 'pod.taint',
    message: `it does not tolerate the node's taint ${text}`,
    fix: `sandbar kubectl taint node ${node.metadata.name} ${key}:${effect}- (or add a toleration to the pod)`,
  };
}

function explainSelector(pod: Pod, node: Node): Explanation | undefined {
  const labels = node.metadata.labels ?? {};
  const wrong = Object.entries(pod.spec?.nodeSelector ?? {}).filter(([key, value]) => labels[key] !== value);
  const [first] = wrong;
  if (first === undefined) return undefined;
  const wanted = wrong.map(([key, value]) => `${key}=${value}`).join(', ');
  return {
    id: 'pod.selector',
    message: `its nodeSelector wants ${wanted}, which the node does not have`,
    fix: `sandbar kubectl label node ${node.metadata.name} ${first[0]}=${first[1]} (or remove the nodeSelector)`,
  };
}

function explainHostPort(pod: Pod, pods: readonly Pod[]): Explanation | undefined {
  const portsOf = (other: Pod): readonly string[] =>
    (other.spec?.containers ?? []).flatMap(({ ports = [] }) =>
      ports.flatMap(({ hostPort, protocol = 'TCP' }) =>
        hostPort === undefined || hostPort === 0 ? [] : [`${String(hostPort)}/${protocol}`],
      ),
    );
  for (const port of portsOf(pod)) {
    const owner = pods.find((other) => isOnNode(other) && portsOf(other).includes(port));
    if (owner === undefined) continue;
    const { name, namespace = 'default' } = owner.metadata;
    return {
      id: 'pod.host-port',
      message: `its hostPort ${port} is taken by pod ${namespace}/${name}`,
      fix: 'remove hostPort (a Service or an Ingress needs none), or choose another',
    };
  }
  return undefined;
}

function explainResources(pod: Pod, node: Node, pods: readonly Pod[]): Explanation | undefined {
  const others = pods.filter(isOnNode);
  const allocatable = node.status?.allocatable ?? {};
  const places = parseQuantity(allocatable['pods'] ?? '');
  if (places !== undefined && others.length >= places) {
    return {
      id: 'pod.resources',
      message: `the node is full: it has place for ${String(places)} pods`,
      fix: 'remove what is not needed, or set kubelet configuration maxPods in sandbar.yaml',
    };
  }
  const wanted = requestsOf(pod);
  const short = Object.entries(wanted).flatMap(([resource, asked]) => {
    const whole = parseQuantity(allocatable[resource] ?? '0') ?? 0;
    const used = others.reduce((sum, other) => sum + (requestsOf(other)[resource] ?? 0), 0);
    const free = Math.max(0, whole - used);
    if (asked <= free) return [];
    const [askedText, freeText, wholeText] = [asked, free, whole].map((value) => formatQuantity(resource, value));
    return [`${askedText ?? ''} ${resource} where ${freeText ?? ''} of ${wholeText ?? ''} is free`];
  });
  if (short.length === 0) return undefined;
  return {
    id: 'pod.resources',
    message: `it requests ${short.join(', and ')}`,
    fix: 'lower resources.requests of the pod, or remove other pods',
  };
}

/** What the scheduler sets aside for a pod: all containers together, or the largest that runs before them. */
function requestsOf(pod: Pod): Readonly<Record<string, number>> {
  const sum: Record<string, number> = { ...numbersOf(pod.spec?.overhead) };
  const add = (container: Container): void => {
    for (const [resource, value] of Object.entries(numbersOf(container.resources?.requests))) {
      sum[resource] = (sum[resource] ?? 0) + value;
    }
  };
  const initContainers = pod.spec?.initContainers ?? [];
  initContainers.filter(({ restartPolicy }) => restartPolicy === 'Always').forEach(add);
  (pod.spec?.containers ?? []).forEach(add);
  for (const container of initContainers) {
    for (const [resource, value] of Object.entries(numbersOf(container.resources?.requests))) {
      sum[resource] = Math.max(sum[resource] ?? 0, value);
    }
  }
  return sum;
}

function numbersOf(quantities: Quantities = {}): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(quantities).map(([key, text]) => [key, parseQuantity(text) ?? 0]));
}

function isOnNode(pod: Pod): boolean {
  const isOver = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
  return pod.spec?.nodeName !== undefined && !isOver;
}

/** There is one node: what preempting other pods would bring on others says nothing. */
function withoutPreemption(message: string): string {
  return message
    .replace(/\. (?:no new claims to deallocate, )?preemption: .*$/s, '')
    .replace(/^0\/1 nodes are available: /, '');
}
