/** An API server over plain HTTPS: the few requests that Sandbar makes. See docs/decisions/0002. */
import { Agent, request } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { SandbarError } from '../model/errors.ts';
import type { ApiAccess, Cluster } from '../model/ports.ts';
import type { KubernetesObject, ObjectRef } from '../model/resources.ts';
import { postForLines } from './kubernetes-lines.ts';

const FIELD_MANAGER = 'sandbar';

const REQUEST_TIMEOUT_MS = 30_000;

/** What is answered line by line begins at once, or after what little it has to do before. */
const FIRST_LINE_MS = 15_000;

/** How long a kind may take to be served after its CustomResourceDefinition was applied. */
const KIND_PATIENCE_MS = 10_000;

type KindReference = { readonly apiVersion: string; readonly kind: string };

type ServedKind = { readonly plural: string; readonly isNamespaced: boolean };

type Answer = { readonly status: number; readonly body: string };

type ApiRequest = {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly content?: { readonly type: string; readonly body: string };
  readonly timeoutMs?: number;
};

/** `Cluster` over the API server's own REST interface, with one pool of connections. */
export class KubernetesCluster implements Cluster {
  readonly #access: ApiAccess;
  readonly #agent: Agent;
  readonly #discovered = new Map<string, ReadonlyMap<string, ServedKind>>();

  constructor(access: ApiAccess) {
    this.#access = access;
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: 8,
      ca: access.ca,
      cert: access.certificate,
      key: access.key,
    });
  }

  async get(path: string, { timeoutMs = REQUEST_TIMEOUT_MS }: { readonly timeoutMs?: number } = {}): Promise<Answer> {
    try {
      return await this.#send({ method: 'GET', path, timeoutMs });
    } catch {
      // The caller asks whether anything answers.
      return { status: 0, body: '' };
    }
  }

  async list(
    kind: KindReference,
    { labelSelector, namespace }: { readonly labelSelector?: string; readonly namespace?: string },
  ): Promise<readonly KubernetesObject[]> {
    const served = await this.#findKind(kind);
    if (served === undefined) return [];
    const query = labelSelector === undefined ? '' : `?${new URLSearchParams({ labelSelector }).toString()}`;
    const path = `${collectionPath(kind, served, namespace)}${query}`;
    const answer = await this.#ask({ method: 'GET', path }, `list ${served.plural}`, { accepts: [404] });
    if (answer.status === 404) return [];
    const { items } = JSON.parse(answer.body) as { items: readonly Omit<KubernetesObject, 'apiVersion' | 'kind'>[] };
    // Items of a list do not say of what kind they are.
    return items.map((item) => ({ ...item, apiVersion: kind.apiVersion, kind: kind.kind }) as KubernetesObject);
  }

  async apply(object: KubernetesObject): Promise<void> {
    const served = await this.#awaitKind(object);
    const query = new URLSearchParams({ fieldManager: FIELD_MANAGER, force: 'true' }).toString();
    await this.#ask(
      {
        method: 'PATCH',
        path: `${objectPath(object, served)}?${query}`,
        content: { type: 'application/apply-patch+yaml', body: JSON.stringify(object) },
      },
      `apply ${formatObject(object)}`,
    );
  }

  async create(object: KubernetesObject, { isDryRun }: { readonly isDryRun: boolean }): Promise<KubernetesObject> {
    const served = await this.#awaitKind(object);
    const { namespace = 'default' } = object.metadata;
    const query = new URLSearchParams({ fieldManager: FIELD_MANAGER, ...(isDryRun ? { dryRun: 'All' } : {}) });
    const answer = await this.#ask(
      {
        method: 'POST',
        path: `${collectionPath(object, served, namespace)}?${query.toString()}`,
        content: { type: 'application/json', body: JSON.stringify(object) },
      },
      `create ${formatObject(object)}`,
    );
    return JSON.parse(answer.body) as KubernetesObject;
  }

  async patch(
    object: ObjectRef,
    patch: Readonly<Record<string, unknown>>,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<KubernetesObject> {
    const served = await this.#awaitKind(object);
    const answer = await this.#ask(
      {
        method: 'PATCH',
        path: `${objectPath(object, served)}?${new URLSearchParams({ fieldManager: FIELD_MANAGER }).toString()}`,
        content: { type: 'application/merge-patch+json', body: JSON.stringify(patch) },
        ...options,
      },
      `patch ${formatObject(object)}`,
    );
    return JSON.parse(answer.body) as KubernetesObject;
  }

  async remove(object: KubernetesObject): Promise<void> {
    const served = await this.#findKind(object);
    if (served === undefined) return;
    const path = `${objectPath(object, served)}?propagationPolicy=Background`;
    await this.#ask({ method: 'DELETE', path }, `remove ${formatObject(object)}`, { accepts: [404] });
  }

  async post(
    path: string,
    body: unknown,
    options: Parameters<Cluster['post']>[2],
  ): Promise<{ readonly status: number }> {
    const request = { firstLineMs: FIRST_LINE_MS, ...options, path, body: JSON.stringify(body) };
    try {
      return await postForLines(this.#access, request);
    } catch (cause) {
      options.signal.throwIfAborted();
      throw unreachable(this.#access.server, `finish POST ${path}`, cause);
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #awaitKind(kind: KindReference): Promise<ServedKind> {
    const deadline = performance.now() + KIND_PATIENCE_MS;
    for (;;) {
      const served = await this.#findKind(kind);
      if (served !== undefined) return served;
      if (performance.now() > deadline) {
        throw new SandbarError('KUBERNETES_FAILED', `the cluster knows no kind ${kind.kind} in ${kind.apiVersion}`, {
          hint: 'apply its CustomResourceDefinition before it, or correct apiVersion and kind',
        });
      }
      await delay(200);
    }
  }

  async #findKind({ apiVersion, kind }: KindReference): Promise<ServedKind | undefined> {
    const builtIn = findBuiltInKind({ apiVersion, kind });
    if (builtIn !== undefined) return builtIn;
    const known = this.#discovered.get(apiVersion)?.get(kind);
    if (known !== undefined) return known;
    const answer = await this.#ask(
      { method: 'GET', path: groupPath(apiVersion) },
      `look up the kinds of ${apiVersion}`,
      {
        accepts: [404],
      },
    );
    if (answer.status === 404) return undefined;
    const { resources } = JSON.parse(answer.body) as {
      resources: readonly { readonly name: string; readonly kind: string; readonly namespaced: boolean }[];
    };
    const kinds = resources
      .filter(({ name }) => !name.includes('/'))
      .map((resource) => [resource.kind, { plural: resource.name, isNamespaced: resource.namespaced }] as const);
    this.#discovered.set(apiVersion, new Map(kinds));
    return this.#discovered.get(apiVersion)?.get(kind);
  }

  async #ask(
    apiRequest: ApiRequest,
    subject: string,
    { accepts = [] }: { readonly accepts?: readonly number[] } = {},
  ): Promise<Answer> {
    const answer = await this.#sendPatiently(apiRequest, subject);
    if ((answer.status >= 200 && answer.status < 300) || accepts.includes(answer.status)) return answer;
    throw translateRefusal(answer, subject);
  }

  /** A server that is starting or overloaded says so; every request of ours may be made twice. */
  async #sendPatiently(apiRequest: ApiRequest, subject: string): Promise<Answer> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const answer = await this.#send(apiRequest);
        if (attempt === 5 || (answer.status !== 429 && answer.status !== 503)) return answer;
      } catch (cause) {
        const { isStale } = cause as { readonly isStale?: boolean };
        if (attempt === 5 || isStale !== true) throw unreachable(this.#access.server, subject, cause);
      }
      await delay(50 * 2 ** attempt);
    }
  }

  #send({ method, path, content, timeoutMs = REQUEST_TIMEOUT_MS }: ApiRequest): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const outgoing = request(
        new URL(path, this.#access.server),
        {
          method,
          agent: this.#agent,
          signal: AbortSignal.timeout(timeoutMs),
          headers: {
            accept: 'application/json',
            ...(content === undefined
              ? {}
              : { 'content-type': content.type, 'content-length': Buffer.byteLength(content.body) }),
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') });
          });
        },
      );
      outgoing.on('error', (cause) => {
        // A kept connection that the server closed meanwhile, as after its restart.
        reject(Object.assign(cause, { isStale: outgoing.reusedSocket }));
      });
      outgoing.end(content?.body);
    });
  }
}

function translateRefusal({ status, body }: Answer, subject: string): SandbarError {
  const message = `could not ${subject}: ${serverMessage(body) ?? `the API server answered ${String(status)}`}`;
  switch (status) {
    case 404:
      return new SandbarError('NOT_FOUND', message);
    case 409:
      return new SandbarError('CONFLICT', message);
    case 401:
    case 403:
      return new SandbarError('KUBERNETES_FAILED', message, { hint: 'sandbar up renews the credentials' });
    default:
      return new SandbarError('KUBERNETES_FAILED', message);
  }
}

/** The API server explains every refusal in an object of kind Status. */
function serverMessage(body: string): string | undefined {
  try {
    const { message } = JSON.parse(body) as { message?: unknown };
    return typeof message === 'string' && message !== '' ? message : undefined;
  } catch {
    const text = body.trim();
    return text === '' ? undefined : text.slice(0, 500);
  }
}

function unreachable(server: string, subject: string, cause: unknown): SandbarError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SandbarError(
    'CLUSTER_NOT_RUNNING',
    `could not ${subject}: the API server at ${server} does not answer (${reason})`,
    {
      hint: 'sandbar status shows what runs, sandbar up repairs it',
      cause,
    },
  );
}

function formatObject({ kind, metadata }: ObjectRef): string {
  return metadata.namespace === undefined
    ? `${kind} ${metadata.name}`
    : `${kind} ${metadata.namespace}/${metadata.name}`;
}

function groupPath(apiVersion: string): string {
  return apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
}

function collectionPath({ apiVersion }: KindReference, served: ServedKind, namespace: string | undefined): string {
  const place = served.isNamespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${groupPath(apiVersion)}${place}/${served.plural}`;
}

function objectPath(object: ObjectRef, served: ServedKind): string {
  const { name, namespace = 'default' } = object.metadata;
  return `${collectionPath(object, served, namespace)}/${encodeURIComponent(name)}`;
}

/** Kinds that need no question to the server, by group: those of every cluster. */
const BUILT_IN_KINDS: Readonly<Record<string, { readonly namespaced?: string; readonly cluster?: string }>> = {
  '': {
    namespaced:
      'ConfigMap Endpoints Event LimitRange PersistentVolumeClaim Pod ReplicationController ResourceQuota Secret Service ServiceAccount',
    cluster: 'Namespace Node PersistentVolume',
  },
  apps: { namespaced: 'ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet' },
  batch: { namespaced: 'CronJob Job' },
  autoscaling: { namespaced: 'HorizontalPodAutoscaler' },
  policy: { namespaced: 'PodDisruptionBudget' },
  'networking.k8s.io': { namespaced: 'Ingress NetworkPolicy', cluster: 'IngressClass' },
  'discovery.k8s.io': { namespaced: 'EndpointSlice' },
  'coordination.k8s.io': { namespaced: 'Lease' },
  'rbac.authorization.k8s.io': { namespaced: 'Role RoleBinding', cluster: 'ClusterRole ClusterRoleBinding' },
  'storage.k8s.io': { cluster: 'CSIDriver StorageClass VolumeAttachment' },
  'scheduling.k8s.io': { cluster: 'PriorityClass' },
  'node.k8s.io': { cluster: 'RuntimeClass' },
  'apiextensions.k8s.io': { cluster: 'CustomResourceDefinition' },
  'apiregistration.k8s.io': { cluster: 'APIService' },
  'admissionregistration.k8s.io': {
    cluster:
      'MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration',
  },
};

function findBuiltInKind({ apiVersion, kind }: KindReference): ServedKind | undefined {
  const group = apiVersion.includes('/') ? apiVersion.replace(/\/.*$/, '') : '';
  const kinds = BUILT_IN_KINDS[group];
  const isNamespaced = kinds?.namespaced?.split(' ').includes(kind) === true;
  if (!isNamespaced && kinds?.cluster?.split(' ').includes(kind) !== true) return undefined;
  return { plural: pluralOf(kind.toLowerCase()), isNamespaced };
}

/** Kubernetes forms the names of its built-in resources by the rules of English. */
function pluralOf(word: string): string {
  if (word === 'endpoints') return word;
  if (word.endsWith('s')) return `${word}es`;
  if (word.endsWith('y')) return `${word.slice(0, -1)}ies`;
  return `${word}s`;
}
