/** Objects that stand in the way of others: webhooks and API services that nobody answers for, what does not go away. */
import { describeCommand, oneLine, type Check } from './check.ts';
import { explainClaim } from './claims.ts';
import { PATIENCE_MS } from './explanation.ts';
import { conditionOf, eventTimeMs, type Conditioned, type Objects } from './kubernetes.ts';

const EVENT_AGE_MS = 10 * 60_000;

export function checkObjects(objects: Objects, nowMs: number): readonly Check[] {
  return [
    ...checkWebhooks(objects),
    ...checkApiServices(objects),
    ...checkNamespaces(objects, nowMs),
    ...checkDefinitions(objects, nowMs),
    ...checkClaims(objects),
    ...checkWorkloads(objects, nowMs),
  ];
}

/** A webhook without an answer refuses every request that it is to be asked of. */
function checkWebhooks({ webhooks, endpointSlices }: Objects): readonly Check[] {
  const hasEndpoint = ({ name, namespace }: { readonly name: string; readonly namespace: string }): boolean =>
    endpointSlices.some(
      (slice) =>
        slice.metadata.namespace === namespace &&
        slice.metadata.labels?.['kubernetes.io/service-name'] === name &&
        (slice.endpoints ?? []).some(({ conditions }) => conditions?.ready !== false),
    );
  return webhooks.flatMap(({ kind, metadata, webhooks: hooks = [] }) => {
    const dead = hooks.filter(({ clientConfig: { service } }) => service !== undefined && !hasEndpoint(service));
    const [first] = dead.toSorted((a, b) => Number(isIgnored(a)) - Number(isIgnored(b)));
    const service = first?.clientConfig.service;
    if (first === undefined || service === undefined) return [];
    const resources = [...new Set(dead.flatMap(({ rules = [] }) => rules.flatMap(({ resources: r = [] }) => r)))];
    const what = `requests for ${resources.slice(0, 4).join(', ')}${resources.length > 4 ? ', …' : ''}`;
    return [
      {
        id: 'webhook',
        severity: isIgnored(first) ? 'warning' : 'error',
        subject: `webhook ${metadata.name}`,
        message: `it ${isIgnored(first) ? 'slows down' : 'blocks'} ${what}: service ${service.namespace}/${service.name} has no ready endpoint`,
        fix: `bring its pods up, or: sandbar kubectl delete ${kind.toLowerCase()} ${metadata.name}`,
      },
    ];
  });
}

function isIgnored({ failurePolicy }: { readonly failurePolicy?: string }): boolean {
  return failurePolicy === 'Ignore';
}

function checkApiServices({ apiServices }: Objects): readonly Check[] {
  return apiServices.flatMap((apiService) => {
    const available = conditionOf(apiService, 'Available');
    if (available === undefined || available.status === 'True') return [];
    const { name } = apiService.metadata;
    return [
      {
        id: 'api-service',
        severity: 'error',
        subject: `API service ${name}`,
        message: `nobody answers for it, so no namespace can be deleted: ${oneLine(available.message ?? available.reason ?? '')}`,
        fix: `bring its service up, or: sandbar kubectl delete apiservice ${name}`,
      },
    ];
  });
}

function checkNamespaces({ namespaces }: Objects, nowMs: number): readonly Check[] {
  return namespaces.flatMap((namespace) => {
    if (!isStuck(namespace, nowMs)) return [];
    const { name } = namespace.metadata;
    const told = (namespace.status?.conditions ?? []).filter(({ status }) => status === 'True');
    const finalizers = told.find(({ type }) => type === 'NamespaceFinalizersRemaining');
    const failure = told.find(({ type }) => /Failure$/.test(type));
    const remaining = told.find(({ type }) => type === 'NamespaceContentRemaining');
    const cause = failure ?? finalizers ?? remaining;
    const own = namespace.spec?.finalizers?.filter((finalizer) => finalizer !== 'kubernetes') ?? [];
    const message =
      cause?.message ?? (own.length > 0 ? `the finalizer ${own.join(', ')} keeps it` : 'nothing says why');
    return [
      {
        id: 'namespace.terminating',
        severity: 'error',
        subject: `namespace ${name}`,
        message: `it was deleted and does not go: ${oneLine(message)}`,
        fix:
          failure === undefined
            ? `take the finalizer off what is left: sandbar kubectl get ${kindsIn(remaining?.message) ?? 'all'} -n ${name}`
            : 'sandbar kubectl get apiservices (delete the one that is not Available)',
      },
    ];
  });
}

/** `Some resources are remaining: pods. has 1 resource instances, …` → `pods,…` */
function kindsIn(message = ''): string | undefined {
  const kinds = [...message.matchAll(/(\S+?) has \d+ resource instances/g)].map(([, kind = '']) =>
    kind.replace(/\.$/, ''),
  );
  return kinds.length === 0 ? undefined : kinds.join(',');
}

function checkDefinitions({ definitions }: Objects, nowMs: number): readonly Check[] {
  return definitions.flatMap((definition): readonly Check[] => {
    const { name, creationTimestamp = '', finalizers = [] } = definition.metadata;
    const base = { subject: `CRD ${name}`, severity: 'error' } as const;
    if (isStuck(definition, nowMs)) {
      const cause = conditionOf(definition, 'Terminating')?.message ?? finalizers.join(', ');
      return [
        {
          ...base,
          id: 'crd.terminating',
          message: `it was deleted and does not go: ${oneLine(cause)}`,
          fix: `take the finalizers off its objects: sandbar kubectl get ${name} -A`,
        },
      ];
    }
    const names = conditionOf(definition, 'NamesAccepted');
    const established = conditionOf(definition, 'Established');
    if (established?.status === 'True' || nowMs - Date.parse(creationTimestamp) < PATIENCE_MS) return [];
    const cause = names?.status === 'False' ? names : established;
    return [
      {
        ...base,
        id: 'crd.established',
        message: `its kind is not served: ${oneLine(cause?.message ?? cause?.reason ?? 'nothing says why')}`,
        fix: describeCommand('crd', name),
      },
    ];
  });
}

/** Claims that no pod asks for: of the others their pods tell. */
function checkClaims(objects: Objects): readonly Check[] {
  return objects.claims.flatMap((claim): readonly Check[] => {
    const { name, namespace = 'default' } = claim.metadata;
    const isUsed = objects.pods.some(
      ({ metadata, spec }) =>
        metadata.namespace === namespace &&
        spec?.volumes?.some(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === name) === true,
    );
    const problem = isUsed ? undefined : explainClaim(claim, objects);
    if (problem === undefined) return [];
    return [{ id: 'claim', severity: 'error', subject: `claim ${namespace}/${name}`, ...problem }];
  });
}

/** Pods that were refused before there was one to tell of, and Jobs that gave up. */
function checkWorkloads({ workloads, events }: Objects, nowMs: number): readonly Check[] {
  return workloads.flatMap((workload): readonly Check[] => {
    const { name, namespace = 'default', ownerReferences = [] } = workload.metadata;
    const [owner] = ownerReferences;
    const shown =
      owner === undefined ? `${workload.kind} ${namespace}/${name}` : `${owner.kind} ${namespace}/${owner.name}`;
    const subject = shown.replace(/^\w/, (letter) => letter.toLowerCase());
    const failed = workload.kind === 'Job' ? conditionOf(workload, 'Failed') : undefined;
    if (failed?.status === 'True') {
      const message = `it failed: ${oneLine(failed.message ?? failed.reason ?? '')}`;
      const fix = `sandbar kubectl logs job/${name} -n ${namespace}`;
      return [{ id: 'job.failed', severity: 'warning', subject, message, fix }];
    }
    const refusal = refusalOf(workload, events, nowMs);
    if (refusal === undefined) return [];
    return [
      {
        id: 'workload.refused',
        severity: 'error',
        subject,
        message: `its pods are refused: ${oneLine(refusal.replace(/^.*? is forbidden: /s, ''))}`,
        fix: refusalFix(refusal, namespace, { kind: workload.kind, name }),
      },
    ];
  });
}

function refusalOf(workload: Conditioned, events: Objects['events'], nowMs: number): string | undefined {
  const condition = conditionOf(workload, 'ReplicaFailure');
  if (condition?.status === 'True') return condition.message;
  if (!lacksPods(workload)) return undefined;
  const [event] = events
    .filter(
      ({ involvedObject: { kind, name, namespace }, reason }) =>
        reason === 'FailedCreate' &&
        kind === workload.kind &&
        name === workload.metadata.name &&
        namespace === workload.metadata.namespace,
    )
    .filter((candidate) => nowMs - eventTimeMs(candidate) < EVENT_AGE_MS)
    .toSorted((a, b) => eventTimeMs(b) - eventTimeMs(a));
  return event?.message;
}

function lacksPods({ kind, spec, status }: Conditioned): boolean {
  switch (kind) {
    case 'StatefulSet':
      return (status?.replicas ?? 0) < (spec?.replicas ?? 1);
    case 'DaemonSet':
      return (status?.currentNumberScheduled ?? 0) < (status?.desiredNumberScheduled ?? 0);
    case 'Job':
      return (status?.active ?? 0) === 0 && (status?.conditions ?? []).length === 0;
    default:
      return false;
  }
}

function refusalFix(refusal: string, namespace: string, of: { readonly kind: string; readonly name: string }): string {
  if (/exceeded quota|failed quota/.test(refusal)) return `sandbar kubectl describe quota -n ${namespace}`;
  if (/\b(?:maximum|minimum) .* usage per|LimitRange/i.test(refusal)) {
    return `sandbar kubectl describe limitrange -n ${namespace}`;
  }
  if (/violates PodSecurity/.test(refusal)) {
    return `correct securityContext, or: sandbar kubectl label namespace ${namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`;
  }
  if (/serviceaccount "?([^" ]+)"? not found|error looking up service account/.test(refusal)) {
    const account = /service ?account [^ ]*?\/?"?([\w.-]+)"?(?::| not found)/i.exec(refusal)?.[1] ?? 'NAME';
    return `sandbar kubectl create serviceaccount ${account} -n ${namespace}`;
  }
  return describeCommand(of.kind.toLowerCase(), of.name, namespace);
}

function isStuck({ metadata: { deletionTimestamp } }: Conditioned, nowMs: number): boolean {
  return deletionTimestamp !== undefined && nowMs - Date.parse(deletionTimestamp) > PATIENCE_MS;
}
