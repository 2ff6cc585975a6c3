/** What `reset --keep` names. */
import { SandbarError } from '../model/errors.ts';
import { findNearest } from './nearest.ts';

export type Kept = {
  /** Claims, their volumes with all data, and the namespaces that they are in. */
  readonly hasVolumes: boolean;
  readonly hasBuckets: boolean;
  /** Mounts made by command too; those of `sandbar.yaml` stay anyway. */
  readonly hasMounts: boolean;
  /** Ports published by command too; those of `sandbar.yaml` stay anyway. */
  readonly hasPorts: boolean;
  /** Names of namespaces with everything in them. */
  readonly namespaces: readonly string[];
};

const WORDS = ['volumes', 'buckets', 'mounts', 'ports'];
const NAMESPACE = /^namespaces?\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)$/;

/** Reads comma-separated lists; throws USAGE with the valid words. */
export function parseKept(lists: readonly string[]): Kept {
  const words = lists.flatMap((list) => list.split(',')).map((word) => word.trim());
  const namespaces = words.flatMap((word) => NAMESPACE.exec(word)?.[1] ?? []);
  const unknown = words.find((word) => !WORDS.includes(word) && !NAMESPACE.test(word));
  if (unknown !== undefined) {
    const nearest = findNearest(unknown.split('/', 1).join(''), [...WORDS, 'namespace']);
    const meant = nearest === 'namespace' ? `namespace/${unknown.split('/')[1] ?? 'NAME'}` : nearest;
    throw new SandbarError('USAGE', `"${unknown}" is nothing that a reset can keep`, {
      hint: `${meant === undefined ? '' : `did you mean ${meant}? `}there are ${WORDS.join(', ')}, namespace/NAME`,
    });
  }
  return {
    hasVolumes: words.includes('volumes'),
    hasBuckets: words.includes('buckets'),
    hasMounts: words.includes('mounts'),
    hasPorts: words.includes('ports'),
    namespaces: [...new Set(namespaces)],
  };
}

/** The words again, as they are shown. */
export function formatKept({ hasVolumes, hasBuckets, hasMounts, hasPorts, namespaces }: Kept): readonly string[] {
  const words = [
    ['volumes', hasVolumes],
    ['buckets', hasBuckets],
    ['mounts', hasMounts],
    ['ports', hasPorts],
  ] as const;
  return [
    ...words.filter(([, isKept]) => isKept).map(([word]) => word),
    ...namespaces.map((name) => `namespace/${name}`),
  ];
}
