/** Says that an object that was named is not there, and what the user probably meant. */
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import type { Cluster } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';

export type NamedObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
};

export async function missingObject(cluster: Cluster, missing: NamedObject): Promise<SandbarError> {
  const { apiVersion, kind, namespace, name } = missing;
  const [namespaces, objects] = await Promise.all([
    cluster.list({ apiVersion: 'v1', kind: 'Namespace' }, {}),
    cluster.list({ apiVersion, kind }, {}),
  ]);
  const namespaceNames = namespaces.map(({ metadata }) => metadata.name);
  if (!namespaceNames.includes(namespace)) {
    const nearest = findNearest(namespace, namespaceNames);
    return new SandbarError('NOT_FOUND', `there is no namespace "${namespace}"`, {
      hint: nearest === undefined ? `there are ${namespaceNames.join(', ')}` : `did you mean ${nearest}?`,
    });
  }
  return new SandbarError('NOT_FOUND', `there is no ${kind} "${name}" in namespace ${namespace}`, {
    hint: hintFor(missing, objects),
  });
}

function hintFor({ kind, namespace, name }: NamedObject, objects: readonly KubernetesObject[]): string {
  const word = kind.toLowerCase();
  const elsewhere = objects.find(({ metadata }) => metadata.name === name);
  if (elsewhere !== undefined) return `it is in namespace ${elsewhere.metadata.namespace ?? ''}: name that with -n`;
  const names = objects.filter(({ metadata }) => metadata.namespace === namespace).map(({ metadata }) => metadata.name);
  const nearest = findNearest(name, names);
  if (nearest !== undefined) return `did you mean ${word}/${nearest}?`;
  if (names.length === 0) return `sandbar kubectl -n ${namespace} get ${word}s lists none; apply it first`;
  return `there ${names.length === 1 ? 'is' : 'are'} ${names.map((one) => `${word}/${one}`).join(', ')}`;
}
