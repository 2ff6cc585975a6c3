/** All that an API server holds, in a form that can be compared: what a reset has to bring back. */
import type { KubernetesJson, Sandbox } from './support.ts';

/** Kinds that tell of time going by, and of nothing else. */
const PASSING = ['Event', 'Lease', 'ComponentStatus'];

/** Is there while metrics-server answers, which nobody waits for. */
const METRICS_REGISTRATION = 'v1beta1.metrics.k8s.io';

/** Objects of every kind by `Kind namespace/name`, without what the server counts. */
export async function readApi(
  sandbox: Sandbox,
  { isSameObject = () => true }: { readonly isSameObject?: (object: KubernetesJson) => boolean } = {},
): Promise<Readonly<Record<string, unknown>>> {
  const resources = (await sandbox.mustKubectl(['api-resources', '--verbs=list', '-o', 'name'])).trim().split('\n');
  const names = resources.filter((name) => !name.endsWith('.metrics.k8s.io'));
  const { items } = await sandbox.getObject(names.join(','), '-A');
  const kept = items.filter(
    (item) => !PASSING.includes(String(item['kind'])) && item.metadata.name !== METRICS_REGISTRATION,
  );
  return Object.fromEntries(
    kept
      .map((item) => [`${String(item['kind'])} ${item.metadata.namespace ?? ''}/${item.metadata.name}`, item] as const)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, item]) => [name, comparable(item, isMadeAgain(item) || !isSameObject(item))]),
  );
}

/** What `up` puts inside after the first start is deleted and made again, as another object of the same content. */
function isMadeAgain({ metadata }: KubernetesJson): boolean {
  return metadata.labels?.['sandbar.dev/origin'] === 'manifest' || metadata.name === 'inventory';
}

function comparable(item: KubernetesJson, isOther: boolean): unknown {
  const passing = ['resourceVersion', ...(isOther ? ['uid', 'creationTimestamp'] : [])];
  const metadata = Object.entries(item.metadata).filter(([field]) => !passing.includes(field));
  const { status, ...content } = item;
  const isStatusPassing = item['kind'] === 'Node' || item['kind'] === 'APIService' || isOther;
  return { ...content, metadata: Object.fromEntries(metadata), ...(isStatusPassing ? {} : { status }) };
}
