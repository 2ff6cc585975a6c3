/** YAML manifests → Kubernetes objects, with the place of everything that is wrong with them. */
import { isMap, isScalar, LineCounter, parseAllDocuments, type Document, type ScalarTag } from 'yaml';
import type { Diagnostic } from './errors.ts';
import type { KubernetesObject } from './resources.ts';
import type { FileContent } from './spec.ts';

export type LocatedObject = { readonly object: KubernetesObject; readonly file: string; readonly line: number };

/**
 * kubectl reads YAML 1.1, where `defaultMode: 0644` is octal and `hostNetwork: yes` a boolean. Its sexagesimal numbers
 * and dates are left out on purpose: kubectl does not know them either.
 */
const KUBECTL_TAGS: readonly ScalarTag[] = [
  {
    tag: 'tag:yaml.org,2002:int',
    default: true,
    format: 'OCT',
    test: /^[-+]?0[0-7]+$/,
    resolve: (text) => parseInt(text, 8),
  },
  { tag: 'tag:yaml.org,2002:bool', default: true, test: /^(?:y|Y|yes|Yes|YES|on|On|ON)$/, resolve: () => true },
  { tag: 'tag:yaml.org,2002:bool', default: true, test: /^(?:n|N|no|No|NO|off|Off|OFF)$/, resolve: () => false },
];

/** Objects of one manifest file, lists taken apart; what cannot be applied is in `diagnostics` instead. */
export function parseManifest(manifest: FileContent): {
  readonly objects: readonly LocatedObject[];
  readonly diagnostics: readonly Diagnostic[];
} {
  const lines = new LineCounter();
  const documents = parseAllDocuments(manifest.content, {
    lineCounter: lines,
    prettyErrors: false,
    merge: true,
    customTags: (tags) => [...KUBECTL_TAGS, ...tags],
  });
  const objects: LocatedObject[] = [];
  const diagnostics: Diagnostic[] = [];
  const placeOf = (offset: number): { readonly line: number; readonly column: number } => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  // An empty text gives an object with `empty`, not a list, by the package's types.
  for (const document of Array.isArray(documents) ? documents : []) {
    if (document.errors.length > 0) {
      diagnostics.push(
        ...document.errors.map((error) => ({ file: manifest.path, ...placeOf(error.pos[0]), message: error.message })),
      );
      continue;
    }
    for (const { value, offset, locate } of itemsOf(document)) {
      const problems = findObjectProblems(value);
      diagnostics.push(
        ...problems.map(({ path, message }) => ({ file: manifest.path, ...placeOf(locate(path) ?? offset), message })),
      );
      if (problems.length > 0) continue;
      objects.push({ object: value as KubernetesObject, file: manifest.path, line: placeOf(offset).line });
    }
  }
  return { objects, diagnostics };
}

type Item = {
  readonly value: unknown;
  readonly offset: number;
  readonly locate: (path: readonly string[]) => number | undefined;
};

/** The document's object, or those of its `v1` List; nothing for an empty document. */
function itemsOf(document: Document): readonly Item[] {
  const value: unknown = document.toJS();
  if (value === null || value === undefined) return [];
  const at = (path: readonly (string | number)[]): number | undefined => {
    for (let length = path.length; length > 0; length -= 1) {
      const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
      if (!isMap(parent)) continue;
      const pair = parent.items.find((item) => isScalar(item.key) && item.key.value === path[length - 1]);
      if (isScalar(pair?.key)) return pair.key.range?.[0];
    }
    return undefined;
  };
  const offset = document.contents?.range?.[0] ?? 0;
  if (!isRecord(value) || value['kind'] !== 'List' || !Array.isArray(value['items'])) {
    return [{ value, offset, locate: at }];
  }
  return value['items'].map((item: unknown, index) => {
    const node = document.getIn(['items', index], true);
    return {
      value: item,
      offset: isMap(node) ? (node.range?.[0] ?? offset) : offset,
      locate: (path) => at(['items', index, ...path]),
    };
  });
}

function findObjectProblems(value: unknown): readonly { readonly path: readonly string[]; readonly message: string }[] {
  if (!isRecord(value))
    return [{ path: [], message: 'a Kubernetes object is a mapping with apiVersion, kind and metadata' }];
  const missing = ['apiVersion', 'kind']
    .filter((field) => typeof value[field] !== 'string' || value[field] === '')
    .map((field) => ({ path: [field], message: `the object has no ${field}` }));
  const metadata = value['metadata'];
  if (!isRecord(metadata) || typeof metadata['name'] !== 'string' || metadata['name'] === '') {
    const reason =
      isRecord(metadata) && 'generateName' in metadata ? ': generateName would make a new one on every up' : '';
    return [...missing, { path: ['metadata', 'name'], message: `the object has no metadata.name${reason}` }];
  }
  const texts = ['labels', 'annotations'].flatMap((field) =>
    Object.entries(isRecord(metadata[field]) ? metadata[field] : {})
      .filter(([, text]) => typeof text !== 'string')
      .map(([key, text]) => ({
        path: ['metadata', field, key],
        message: `${field} are texts: ${key} is ${JSON.stringify(text)}, write it in quotes`,
      })),
  );
  const namespace = metadata['namespace'];
  const isNamespaceWrong = namespace !== undefined && typeof namespace !== 'string';
  return [
    ...missing,
    ...texts,
    ...(isNamespaceWrong ? [{ path: ['metadata', 'namespace'], message: 'metadata.namespace must be a text' }] : []),
  ];
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
