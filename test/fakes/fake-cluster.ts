import { SandbarError } from '../../src/model/errors.ts';
import type { Cluster } from '../../src/model/ports.ts';
import type { KubernetesObject, ObjectRef } from '../../src/model/resources.ts';

/** Returns the status where it is not 200. */
export type FakePost = (request: {
  readonly body: unknown;
  readonly say: (line: object) => void;
  readonly signal: AbortSignal;
}) => Promise<number | undefined>;

/** An API server in memory: objects by kind, namespace and name; paths that answer as they are told. */
export class FakeCluster implements Cluster {
  readonly objects = new Map<string, KubernetesObject>();
  /** Path → answer of `get`; other paths are not found, and nothing answers while `isDown`. */
  readonly answers = new Map<string, { readonly status: number; readonly body: string }>([
    ['/apis/metrics.k8s.io/v1beta1', { status: 200, body: '{}' }],
    ['/readyz', { status: 200, body: 'ok' }],
    ['/apis/gateway.networking.k8s.io', { status: 200, body: '{}' }],
  ]);
  /** What admission makes of an object that is created. */
  admit: (object: KubernetesObject) => KubernetesObject = (object) => object;
  /** Path → what answers a POST there: lines given to `say`, in the time that it takes; other paths are not found. */
  readonly posts = new Map<string, FakePost>([
    [
      '/sandbar/repair',
      ({ say }) => {
        say({ phase: 'done', repaired: this.repairs });
        return Promise.resolve(undefined);
      },
    ],
  ]);
  /** What the control plane finds to be made again. */
  repairs: readonly string[] = [];
  isDown = false;
  isClosed = false;

  get(path: string): Promise<{ readonly status: number; readonly body: string }> {
    if (this.isDown) return Promise.resolve({ status: 0, body: '' });
    return Promise.resolve(this.answers.get(path) ?? { status: 404, body: '{"message":"not found"}' });
  }

  list(
    { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
    { labelSelector, namespace }: { readonly labelSelector?: string; readonly namespace?: string },
  ): Promise<readonly KubernetesObject[]> {
    const found = [...this.objects.values()].filter(
      (object) =>
        object.apiVersion === apiVersion &&
        object.kind === kind &&
        (namespace === undefined || object.metadata.namespace === namespace) &&
        isSelected(object.metadata.labels ?? {}, labelSelector),
    );
    return Promise.resolve(found);
  }

  apply(object: KubernetesObject): Promise<void> {
    const present = this.objects.get(keyOf(object));
    const metadata = { ...present?.metadata, ...object.metadata };
    this.objects.set(keyOf(object), { ...present, ...object, metadata });
    return Promise.resolve();
  }

  create(object: KubernetesObject, { isDryRun }: { readonly isDryRun: boolean }): Promise<KubernetesObject> {
    if (this.objects.has(keyOf(object))) {
      return Promise.reject(new SandbarError('CONFLICT', `${object.kind} ${object.metadata.name} already exists`));
    }
    const admitted = this.admit(object);
    if (!isDryRun) this.objects.set(keyOf(object), admitted);
    return Promise.resolve(admitted);
  }

  patch(object: ObjectRef, patch: Readonly<Record<string, unknown>>): Promise<KubernetesObject> {
    const present = this.objects.get(keyOf(object));
    if (present === undefined) {
      return Promise.reject(new SandbarError('NOT_FOUND', `${object.kind} ${object.metadata.name} not found`));
    }
    const patched = mergePatch(present, patch) as KubernetesObject;
    this.objects.set(keyOf(object), patched);
    return Promise.resolve(patched);
  }

  remove(object: KubernetesObject): Promise<void> {
    this.objects.delete(keyOf(object));
    return Promise.resolve();
  }

  async post(
    path: string,
    body: unknown,
    { onLine, signal }: { readonly onLine: (line: string) => void; readonly signal: AbortSignal },
  ): Promise<{ readonly status: number }> {
    signal.throwIfAborted();
    if (this.isDown) throw new SandbarError('CLUSTER_NOT_RUNNING', `could not finish POST ${path}: nothing answers`);
    const say = (line: object): void => {
      onLine(JSON.stringify(line));
    };
    const answer = this.posts.get(path);
    if (answer !== undefined) return { status: (await answer({ body, say, signal })) ?? 200 };
    onLine('404 page not found');
    return { status: 404 };
  }

  close(): void {
    this.isClosed = true;
  }
}

function keyOf({ apiVersion, kind, metadata }: ObjectRef): string {
  return [apiVersion, kind, metadata.namespace ?? '', metadata.name].join(' ');
}

/** RFC 7396. */
function mergePatch(present: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return patch;
  const fields = isFields(present) ? present : {};
  const merged = Object.entries(patch).map(([key, value]) => [key, mergePatch(fields[key], value)] as const);
  const kept = Object.entries({ ...fields, ...Object.fromEntries(merged) }).filter(([, value]) => value !== null);
  return Object.fromEntries(kept);
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** `key`, `key=value` and `key in (a,b)`, comma-separated outside of parentheses. */
function isSelected(labels: Readonly<Record<string, string>>, selector = ''): boolean {
  const terms = selector.split(/,(?![^(]*\))/).filter((term) => term.trim() !== '');
  return terms.every((term) => {
    const set = /^\s*(\S+)\s+in\s+\(([^)]*)\)\s*$/.exec(term);
    if (set !== null) {
      const values = (set[2] ?? '').split(',').map((value) => value.trim());
      return values.includes(labels[set[1] ?? ''] ?? '');
    }
    const [key = '', value] = term.split(/==?/).map((part) => part.trim());
    return value === undefined ? labels[key] !== undefined : labels[key] === value;
  });
}
