/** `quickstart`: an example app on a cluster, looked at from outside as its user would. */
import { isDeepStrictEqual } from 'node:util';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { LABELS } from '../model/names.ts';
import type { Cluster, ObjectStore, Ports } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { accessCluster, hostPortOf, objectStoreAccess, withCluster } from './access.ts';
import { loadImages } from './image-load.ts';

const PODS_PATIENCE_MS = 90_000;
const PAGE_PATIENCE_MS = 15_000;
const PAUSE_MS = 100;

export type ExampleApp = {
  /** Host of its Ingress. */
  readonly host: string;
  readonly bucketName: string;
  /** Put into the bucket where that is empty, so that the first look finds something. */
  readonly picture: { readonly key: string; readonly read: () => Promise<Buffer> };
  readonly imageRefs: readonly string[];
  readonly manifests: readonly KubernetesObject[];
};

export type RunningExample = {
  readonly url: string;
  readonly objectStoreEndpoint: string;
  readonly objectStoreConsole: string;
  readonly pictures: number;
};

type QuickstartRequest = {
  readonly clusterName: string;
  readonly app: ExampleApp;
  /** `up` with these manifests. */
  readonly up: (manifests: readonly KubernetesObject[]) => Promise<void>;
  readonly signal: AbortSignal;
};

/** Brings up the cluster with the app on it, and resolves when its page and a picture have come through. */
export async function deployExample(request: QuickstartRequest, ports: Ports, emit: Emit): Promise<RunningExample> {
  const { app, clusterName, signal } = request;
  const volumes = await ports.runtime.listVolumes({ key: LABELS.cluster, value: clusterName });
  const isNew = volumes.length === 0;
  // A pod that is there before its image waits ten seconds and more until the next try.
  await request.up(isNew ? [] : app.manifests);
  const loaded = await loadImages({ clusterName, imageRefs: app.imageRefs, signal }, ports, emit);
  if (isNew) await request.up(app.manifests);

  const access = await accessCluster(ports.runtime, clusterName);
  const { endpoint, consoleUrl, ...keys } = await objectStoreAccess(access, ports.runtime);
  const httpPort = hostPortOf(access.containers, 'ingress', 80) ?? 80;
  const url = `http://${app.host}${httpPort === 80 ? '' : `:${String(httpPort)}`}`;
  const objectStore = ports.connectObjectStore({ endpoint, ...keys });
  const startedAt = ports.clock.now();
  const phase = 'example app';
  emit({ type: 'phase-started', phase, text: 'waiting for its pods' });
  try {
    await withCluster(access, ports, async (cluster) => {
      const changed = loaded.filter(({ bytesSent }) => bytesSent > 0).map(({ imageRef }) => imageRef);
      if (!isNew) await replacePods(cluster, changed);
      await waitForPods(cluster, app.manifests, { ports, signal });
    });
    emit({ type: 'phase-progress', phase, text: 'fetching its page and a picture' });
    const pictures = await visit({ url, app, objectStore, ports, signal });
    emit({ type: 'phase-finished', phase, text: `answers at ${url}`, ms: ports.clock.now() - startedAt });
    return { url, objectStoreEndpoint: endpoint, objectStoreConsole: consoleUrl, pictures };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: ports.clock.now() - startedAt });
    throw error;
  }
}

/** Pods of an image that has changed under its name go: their Deployments make new ones, of the new image. */
async function replacePods(cluster: Cluster, imageRefs: readonly string[]): Promise<void> {
  if (imageRefs.length === 0) return;
  const pods = await listPods(cluster);
  for (const pod of pods) {
    if (pod.spec.containers.some(({ image }) => imageRefs.includes(image))) await cluster.remove(pod);
  }
}

async function waitForPods(
  cluster: Cluster,
  manifests: readonly KubernetesObject[],
  { ports, signal }: { readonly ports: Ports; readonly signal: AbortSignal },
): Promise<void> {
  const names = manifests.filter(({ kind }) => kind === 'Deployment').map(({ metadata }) => metadata.name);
  const deadline = ports.clock.now() + PODS_PATIENCE_MS;
  for (;;) {
    const deployments = (await cluster.list({ apiVersion: 'apps/v1', kind: 'Deployment' }, {})) as Deployment[];
    const waiting = deployments.filter(
      (deployment) => names.includes(deployment.metadata.name) && !isReady(deployment),
    );
    if (waiting.length === 0) return;
    if (ports.clock.now() > deadline) {
      const pods = await listPods(cluster);
      throw new SandbarError('TIMED_OUT', `${waiting.map(({ metadata }) => metadata.name).join(' and ')} not ready`, {
        details: pods.flatMap(podProblems),
        hint: 'sandbar kubectl describe pods shows more',
      });
    }
    await ports.clock.sleep(PAUSE_MS, signal);
  }
}

type Deployment = KubernetesObject & {
  readonly metadata: { readonly generation?: number };
  readonly spec: { readonly replicas?: number };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly replicas?: number;
    readonly updatedReplicas?: number;
    readonly readyReplicas?: number;
  };
};

function isReady({ metadata, spec, status }: Deployment): boolean {
  const { replicas = 1 } = spec;
  return (
    status?.observedGeneration === metadata.generation &&
    isDeepStrictEqual([status?.replicas, status?.updatedReplicas, status?.readyReplicas], Array(3).fill(replicas))
  );
}

type Pod = KubernetesObject & {
  readonly spec: { readonly containers: readonly { readonly image: string }[] };
  readonly status?: {
    readonly phase?: string;
    readonly containerStatuses?: readonly {
      readonly name: string;
      readonly ready: boolean;
      readonly state?: Readonly<Record<string, { readonly reason?: string; readonly message?: string }>>;
    }[];
  };
};

async function listPods(cluster: Cluster): Promise<readonly Pod[]> {
  return (await cluster.list({ apiVersion: 'v1', kind: 'Pod' }, { namespace: 'default' })) as Pod[];
}

function podProblems({ metadata, status }: Pod): readonly string[] {
  const problems = (status?.containerStatuses ?? [])
    .filter(({ ready }) => !ready)
    .map(({ name, state = {} }) => {
      const [[what, { reason = '', message = '' }] = ['unknown', {}]] = Object.entries(state);
      return `pod ${metadata.name}, container ${name}: ${[what, reason, message].filter(Boolean).join(', ')}`;
    });
  return problems.length > 0 || status?.phase === 'Running'
    ? problems
    : [`pod ${metadata.name}: ${status?.phase ?? 'unknown'}`];
}

/** The page through the ingress, and one picture both through the app and from the object store itself. */
async function visit(visitor: {
  readonly url: string;
  readonly app: ExampleApp;
  readonly objectStore: ObjectStore;
  readonly ports: Ports;
  readonly signal: AbortSignal;
}): Promise<number> {
  const { url, app, objectStore, ports, signal } = visitor;
  const deadline = ports.clock.now() + PAGE_PATIENCE_MS;
  const get = async (path: string): Promise<string> => {
    for (;;) {
      const { status, body } = await ports.host.httpGet(`${url}${path}`, { timeoutMs: 5_000 });
      if (status === 200) return body;
      // The ingress hears of a Service's pods a moment after the Deployment calls them ready.
      if (ports.clock.now() > deadline) {
        throw new SandbarError('TIMED_OUT', `${url}${path} answers ${status === 0 ? 'nothing' : String(status)}`, {
          hint: 'sandbar logs ingress, and sandbar kubectl logs deployment/web',
          details: body === '' ? [] : [body.slice(0, 500)],
        });
      }
      await ports.clock.sleep(PAUSE_MS, signal);
    }
  };
  const list = async (): Promise<Listing> => JSON.parse(await get('/api/pictures?limit=1000')) as Listing;

  await get('/');
  let listing = await list();
  if (listing.total === 0) {
    await objectStore.putObject(app.bucketName, { key: app.picture.key, content: await app.picture.read() });
    listing = await list();
  }
  const [picture] = listing.pictures;
  if (picture === undefined) throw missingPicture(app, 'the page lists no picture');
  await get(`/picture?key=${encodeURIComponent(picture.key)}`);
  const object = await objectStore.getObject(app.bucketName, picture.key);
  if (object?.length !== picture.bytes) throw missingPicture(app, `${picture.key} is not as the page lists it`);
  return listing.total;
}

type Listing = {
  readonly total: number;
  readonly pictures: readonly { readonly key: string; readonly bytes: number }[];
};

function missingPicture(app: ExampleApp, reason: string): SandbarError {
  return new SandbarError('OBJECT_STORE_FAILED', `${reason}, but the bucket ${app.bucketName} should hold one`, {
    hint: 'sandbar status, and sandbar logs object-store',
  });
}
