/** The Node object: whether it is there, ready, and takes pods. */
import { oneLine, type Check } from './check.ts';
import { conditionOf, type Node } from './kubernetes.ts';

const PRESSURES: Readonly<Record<string, string>> = {
  DiskPressure: 'free some space: docker system df shows what takes it',
  MemoryPressure: 'give the engine more memory, or remove pods',
  PIDPressure: 'remove pods: too many processes run on the node',
  NetworkUnavailable: 'sandbar logs agent --tail 50',
};

export function checkNode(nodes: readonly Node[], name: string): readonly Check[] {
  const subject = `node ${name}`;
  const node = nodes.find(({ metadata }) => metadata.name === name);
  if (node === undefined) {
    return [
      {
        id: 'node.missing',
        severity: 'error',
        subject,
        message: 'its Node object was deleted: no pod can start',
        fix: 'sandbar up',
        repair: { kind: 'up' },
      },
    ];
  }
  const checks = [checkReady(node, subject), ...checkPressure(node, subject), ...checkTaints(node, subject)];
  return checks;
}

function checkReady(node: Node, subject: string): Check {
  const ready = conditionOf(node, 'Ready');
  const base = { id: 'node.ready', subject };
  if (ready?.status === 'True') return { ...base, severity: 'ok', message: 'it is ready' };
  // The controller manager writes Unknown once the kubelet has been silent for a while.
  const isSilent = ready?.status === 'Unknown';
  return {
    ...base,
    severity: 'error',
    message: isSilent ? 'it is not ready: its kubelet no longer answers' : 'it is not ready',
    ...(ready?.message === undefined ? {} : { cause: `${ready.reason ?? ''}: ${oneLine(ready.message)}` }),
    fix: isSilent ? 'sandbar up' : 'sandbar logs agent --tail 50',
    ...(isSilent ? { repair: { kind: 'up' } } : {}),
  };
}

function checkPressure(node: Node, subject: string): readonly Check[] {
  return (node.status?.conditions ?? [])
    .filter(({ type, status }) => type in PRESSURES && status === 'True')
    .map(({ type, message = '' }) => ({
      id: 'node.pressure',
      severity: 'error',
      subject,
      message: `it has ${type}, and takes no new pods: ${oneLine(message)}`,
      fix: PRESSURES[type] ?? '',
    }));
}

function checkTaints(node: Node, subject: string): readonly Check[] {
  const { name } = node.metadata;
  const cordoned: readonly Check[] =
    node.spec?.unschedulable === true
      ? [
          {
            id: 'node.cordoned',
            severity: 'warning',
            subject,
            message: 'it is cordoned: no new pod starts',
            fix: `sandbar kubectl uncordon ${name}`,
          },
        ]
      : [];
  // Those of Kubernetes' own say the same as the conditions.
  const taints = (node.spec?.taints ?? []).filter(
    ({ key, effect }) => !key.startsWith('node.kubernetes.io/') && effect !== 'PreferNoSchedule',
  );
  return [
    ...cordoned,
    ...taints.map(({ key, value, effect }): Check => ({
      id: 'node.taint',
      severity: 'warning',
      subject,
      message: `it has the taint ${key}${value === undefined ? '' : `=${value}`}:${effect}: only pods that tolerate it start`,
      fix: `sandbar kubectl taint node ${name} ${key}:${effect}-`,
    })),
  ];
}
