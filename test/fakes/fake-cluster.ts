import type { Cluster } from '../../src/model/ports.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';

/** An API server in memory: objects by kind, namespace and name; paths that answer as they are told. */
export class FakeCluster implements Cluster {
  readonly objects = new Map<string, KubernetesObject>();
  /** Path → answer of `get`; other paths are not found, and nothing answers while `isDown`. */
  readonly answers = new Map<string, { readonly status: number; readonly body: string }>([
    ['/readyz', { status: 200, body: 'ok' }],
  ]);
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

  remove(object: KubernetesObject): Promise<void> {
    this.objects.delete(keyOf(object));
    return Promise.resolve();
  }

  close(): void {
    this.isClosed = true;
  }
}

function keyOf({ apiVersion, kind, metadata }: KubernetesObject): string {
  return [apiVersion, kind, metadata.namespace ?? '', metadata.name].join(' ');
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
