/** What doctor sees through a cluster's API: objects, listed once, and the last words of containers that fail. */
import { wantsLastLine } from '../diagnosis/containers.ts';
import { keyOf, type World } from '../diagnosis/explanation.ts';
import type { ContainerStatus, Objects, Pod, WarningEvent } from '../diagnosis/kubernetes.ts';
import { SandbarError } from '../model/errors.ts';
import { containerName } from '../model/names.ts';
import type { Cluster, Ports, Runtime } from '../model/ports.ts';
import { openAccess, withCluster } from './access.ts';
import { PART_TIMEOUT_MS, runInside, type FoundCluster } from './observe-parts.ts';

/** Containers whose log is asked for; the first of them tell what the others would. */
const LAST_LINES = 24;

const IMAGE_REASONS = ['ErrImagePull', 'ImagePullBackOff', 'ErrImageNeverPull', 'ImageInspectError'];

/** Undefined while the API server does not answer. */
export async function observeWorld(found: FoundCluster, ports: Ports): Promise<World | undefined> {
  const controlPlane = found.containers.find(({ name }) => name === containerName(found.clusterName, 'control-plane'));
  if (found.identity === undefined || controlPlane?.state !== 'running') return undefined;
  const access = openAccess(found.clusterName, found.containers, found.identity);
  return withCluster(access, ports, async (cluster) => {
    const { status } = await cluster.get('/readyz', { timeoutMs: PART_TIMEOUT_MS });
    if (status === 0) return undefined;
    try {
      const objects = await listObjects(cluster);
      const [lastLines, images] = await Promise.all([
        readLastLines(cluster, objects.pods),
        observeImages(objects.pods, found.clusterName, ports.runtime),
      ]);
      return { objects, nowMs: ports.clock.now(), lastLines, ...images };
    } catch (error) {
      // An API server that stopped answering meanwhile is told of by its own check.
      if (error instanceof SandbarError) return undefined;
      throw error;
    }
  });
}

async function listObjects(cluster: Cluster): Promise<Objects> {
  const list = async <T>(apiVersion: string, kind: string): Promise<readonly T[]> =>
    (await cluster.list({ apiVersion, kind }, {})) as unknown as readonly T[];
  const admission = 'admissionregistration.k8s.io/v1';
  const [nodes, pods, namespaces, claims, storageClasses, endpointSlices, apiServices, definitions, events] =
    await Promise.all([
      list<Objects['nodes'][number]>('v1', 'Node'),
      list<Pod>('v1', 'Pod'),
      list<Objects['namespaces'][number]>('v1', 'Namespace'),
      list<Objects['claims'][number]>('v1', 'PersistentVolumeClaim'),
      list<Objects['storageClasses'][number]>('storage.k8s.io/v1', 'StorageClass'),
      list<Objects['endpointSlices'][number]>('discovery.k8s.io/v1', 'EndpointSlice'),
      list<Objects['apiServices'][number]>('apiregistration.k8s.io/v1', 'APIService'),
      list<Objects['definitions'][number]>('apiextensions.k8s.io/v1', 'CustomResourceDefinition'),
      listWarnings(cluster),
    ]);
  const [webhooks, workloads] = await Promise.all([
    Promise.all([
      list<Objects['webhooks'][number]>(admission, 'ValidatingWebhookConfiguration'),
      list<Objects['webhooks'][number]>(admission, 'MutatingWebhookConfiguration'),
    ]),
    Promise.all([
      list<Objects['workloads'][number]>('apps/v1', 'ReplicaSet'),
      list<Objects['workloads'][number]>('apps/v1', 'StatefulSet'),
      list<Objects['workloads'][number]>('apps/v1', 'DaemonSet'),
      list<Objects['workloads'][number]>('batch/v1', 'Job'),
    ]),
  ]);
  return {
    nodes,
    pods,
    namespaces,
    claims,
    storageClasses,
    endpointSlices,
    apiServices,
    definitions,
    events,
    webhooks: webhooks.flat(),
    workloads: workloads.flat(),
  };
}

/** Of thousands of events only those that warn. */
async function listWarnings(cluster: Cluster): Promise<readonly WarningEvent[]> {
  const query = new URLSearchParams({ fieldSelector: 'type=Warning', limit: '2000' }).toString();
  const { status, body } = await cluster.get(`/api/v1/events?${query}`, { timeoutMs: 2 * PART_TIMEOUT_MS });
  if (status !== 200) return [];
  return (JSON.parse(body) as { readonly items?: readonly WarningEvent[] }).items ?? [];
}

async function readLastLines(cluster: Cluster, pods: readonly Pod[]): Promise<ReadonlyMap<string, string>> {
  const wanted = pods.flatMap((pod) => [
    ...wantedOf(pod, pod.status?.initContainerStatuses, { isInit: true }),
    ...wantedOf(pod, pod.status?.containerStatuses, { isInit: false }),
  ]);
  const lines = await Promise.all(
    wanted.slice(0, LAST_LINES).map(async ({ pod, status }) => {
      const isRestarted = status.state?.running !== undefined && status.lastState?.terminated !== undefined;
      const { name, namespace = 'default' } = pod.metadata;
      const query = new URLSearchParams({ container: status.name, tailLines: '3', previous: String(isRestarted) });
      const path = `/api/v1/namespaces/${namespace}/pods/${name}/log?${query.toString()}`;
      const answer = await cluster.get(path, { timeoutMs: PART_TIMEOUT_MS });
      const line = answer.body.trim().split('\n').at(-1)?.trim() ?? '';
      // The kubelet says in the log itself that it is gone.
      const isThere = answer.status === 200 && line !== '' && !line.startsWith('unable to retrieve container logs');
      return isThere ? ([keyOf(pod, status.name), line] as const) : undefined;
    }),
  );
  return new Map(lines.filter((line) => line !== undefined));
}

function wantedOf(
  pod: Pod,
  statuses: readonly ContainerStatus[] = [],
  kind: { readonly isInit: boolean },
): readonly { readonly pod: Pod; readonly status: ContainerStatus }[] {
  return statuses.filter((status) => wantsLastLine(status, kind)).map((status) => ({ pod, status }));
}

/** Where the images are that pods wait for. */
async function observeImages(
  pods: readonly Pod[],
  clusterName: string,
  runtime: Runtime,
): Promise<Pick<World, 'engineImages' | 'nodeImages'>> {
  const lacking = new Set(
    pods.flatMap(({ spec, status }) => {
      const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
      const names = statuses
        .filter(({ state }) => IMAGE_REASONS.includes(state?.waiting?.reason ?? ''))
        .map(({ name }) => name);
      return [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]
        .filter(({ name }) => names.includes(name))
        .map(({ image = '' }) => image);
    }),
  );
  if (lacking.size === 0) return { engineImages: new Set(), nodeImages: undefined };
  const [present, listed] = await Promise.all([
    Promise.all(
      [...lacking].map(async (image) => {
        // The engine refuses names that are none.
        const id = await runtime.findImageId(image).catch(() => undefined);
        return id === undefined ? undefined : image;
      }),
    ),
    runInside(runtime, containerName(clusterName, 'agent'), ['sandbar-images', 'list']),
  ]);
  return {
    engineImages: new Set(present.filter((image) => image !== undefined)),
    nodeImages: listed === undefined ? undefined : new Set(namesOf(listed)),
  };
}

function namesOf(listed: string): readonly string[] {
  return (JSON.parse(listed) as readonly { readonly name: string }[]).map(({ name }) => name);
}
