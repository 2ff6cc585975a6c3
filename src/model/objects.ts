import type { KubernetesObject } from './resources.ts';

/**
 * `object/Service/kube-system/kube-dns`, `object/Ingress.networking.k8s.io/web`: unique within a cluster. The namespace
 * `default` is left out, because most manifests do not name it and the API server does.
 */
export function objectIdOf(object: KubernetesObject): string {
  const [group, version] = object.apiVersion.split('/');
  const kind = version === undefined ? object.kind : `${object.kind}.${group ?? ''}`;
  const { namespace, name } = object.metadata;
  return ['object', kind, namespace === 'default' ? undefined : namespace, name]
    .filter((part) => part !== undefined)
    .join('/');
}
