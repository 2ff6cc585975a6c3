/** Kubeconfig texts: one of its own, and entries put into or taken out of a user's file, of which nothing else changes. */
import { Document, isMap, isScalar, isSeq, LineCounter, parseDocument, YAMLMap, YAMLSeq } from 'yaml';
import { configInvalid } from './errors.ts';
import type { ApiAccess } from './ports.ts';

/** An entry for one cluster: cluster, user and context bear the same name. */
export type KubeconfigEntry = { readonly name: string; readonly access: ApiAccess };

/** A text to work on; `file` is named in the error when it is not a kubeconfig. */
export type KubeconfigText = { readonly file: string; readonly text: string };

/** A kubeconfig for one cluster alone. */
export function formatKubeconfig(access: ApiAccess, contextName: string): string {
  return mergeKubeconfig(undefined, { name: contextName, access });
}

/** The file's text with this entry in it and its context current; what the user has set in that context stays. */
export function mergeKubeconfig(existing: KubeconfigText | undefined, entry: KubeconfigEntry): string {
  const { name, access } = entry;
  const document = existing === undefined ? emptyDocument() : parse(existing);
  const root = rootOf(document);
  if (!root.has('apiVersion')) root.set('apiVersion', 'v1');
  if (!root.has('kind')) root.set('kind', 'Config');

  const cluster = entryOf(document, 'clusters', { name, field: 'cluster' });
  for (const field of ['certificate-authority', 'insecure-skip-tls-verify', 'proxy-url', 'tls-server-name']) {
    cluster.delete(field);
  }
  cluster.set('certificate-authority-data', encode(access.ca));
  cluster.set('server', access.server);

  const context = entryOf(document, 'contexts', { name, field: 'context' });
  context.set('cluster', name);
  context.set('user', name);

  const user = entryOf(document, 'users', { name, field: 'user' });
  for (const field of user.items.map(({ key }) => key)) user.delete(field);
  user.set('client-certificate-data', encode(access.certificate));
  user.set('client-key-data', encode(access.key));

  setScalar(root, 'current-context', name);
  return format(document, existing?.text ?? '');
}

/** What a file says of the cluster of this name; undefined when it has no whole entry for it. */
export function findKubeconfigEntry(
  existing: KubeconfigText,
  name: string,
): Pick<ApiAccess, 'server' | 'ca' | 'certificate'> | undefined {
  const root = rootOf(parse(existing)).toJSON() as Readonly<Record<string, unknown>>;
  const find = (key: string, field: string): Readonly<Record<string, unknown>> | undefined => {
    const list = (root[key] ?? []) as readonly Readonly<Record<string, unknown>>[];
    return list.find((item) => item['name'] === name)?.[field] as Readonly<Record<string, unknown>> | undefined;
  };
  const [cluster, user, context] = [find('clusters', 'cluster'), find('users', 'user'), find('contexts', 'context')];
  if (cluster === undefined || user === undefined || context === undefined) return undefined;
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const decode = (value: unknown): string => Buffer.from(text(value), 'base64').toString();
  return {
    server: text(cluster['server']),
    ca: decode(cluster['certificate-authority-data']),
    certificate: decode(user['client-certificate-data']),
  };
}

/** The file's text without the entry of this name; `undefined` when it has none. */
export function removeFromKubeconfig(existing: KubeconfigText, contextName: string): string | undefined {
  const document = parse(existing);
  const root = rootOf(document);
  let isChanged = false;
  for (const key of ['clusters', 'contexts', 'users']) {
    const list = root.get(key);
    if (!isSeq(list)) continue;
    const kept = list.items.filter((item) => !isMap(item) || item.get('name') !== contextName);
    if (kept.length === list.items.length) continue;
    list.items = kept;
    // An empty list is written as `[]`, as kubectl does; a block list without items would read as null.
    if (kept.length === 0) list.flow = true;
    isChanged = true;
  }
  if (root.get('current-context') === contextName) {
    setScalar(root, 'current-context', '');
    isChanged = true;
  }
  return isChanged ? format(document, existing.text) : undefined;
}

function emptyDocument(): Document {
  return new Document({ apiVersion: 'v1', kind: 'Config', preferences: {} });
}

function parse({ file, text }: KubeconfigText): Document {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const invalid = (message: string, offset: number): Error => {
    const { line, col } = lines.linePos(offset);
    return configInvalid([{ file, line: Math.max(line, 1), column: Math.max(col, 1), message }]);
  };
  const [syntax] = document.errors;
  if (syntax !== undefined) throw invalid(`this kubeconfig is not valid YAML: ${syntax.message}`, syntax.pos[0]);
  if (document.contents !== null && !(isScalar(document.contents) && document.contents.value === null)) {
    if (!isMap(document.contents)) throw invalid('this is not a kubeconfig', 0);
    for (const key of ['clusters', 'contexts', 'users']) {
      const node = document.contents.get(key, true);
      const isEmpty = node === undefined || (isScalar(node) && node.value === null);
      if (!isEmpty && !isSeq(node))
        throw invalid(`this is not a kubeconfig: ${key} is not a list`, node.range?.[0] ?? 0);
    }
  }
  return document;
}

/** The top mapping; made where the file is empty or holds comments only. */
function rootOf(document: Document): YAMLMap {
  if (isMap(document.contents)) return document.contents;
  const root = new YAMLMap(document.schema);
  document.contents = root;
  return root;
}

/** The mapping below `field` of the list item with this name; both are made where they are missing. */
function entryOf(document: Document, key: string, entry: { readonly name: string; readonly field: string }): YAMLMap {
  const root = rootOf(document);
  const existing = root.get(key);
  const list = isSeq(existing) ? existing : new YAMLSeq(document.schema);
  if (list !== existing) root.set(key, list);
  if (list.items.length === 0) list.flow = false;
  let item = list.items.find((candidate) => isMap(candidate) && candidate.get('name') === entry.name);
  if (!isMap(item)) {
    item = document.createNode({ [entry.field]: {}, name: entry.name });
    list.add(item);
  }
  const map = item as YAMLMap;
  const inner = map.get(entry.field);
  if (isMap(inner)) {
    inner.flow = inner.items.length > 0 && inner.flow === true;
    return inner;
  }
  const made = new YAMLMap(document.schema);
  map.set(entry.field, made);
  return made;
}

/** Keeps the scalar's node, and with it the comment beside it. */
function setScalar(map: YAMLMap, key: string, value: string): void {
  const node = map.get(key, true);
  if (isScalar(node)) node.value = value;
  else map.set(key, value);
}

/** In the file's own style: kubectl writes lists at their key's own column, people mostly indent them. */
function format(document: Document, original: string): string {
  const style = styleOf(original);
  const text = document.toString({ ...style, lineWidth: 0, flowCollectionPadding: !/\{[^\s}]/.test(original) });
  return original.includes('\r\n') ? text.replaceAll(/\r?\n/g, '\r\n') : text;
}

function styleOf(original: string): { readonly indentSeq: boolean; readonly indent: number } {
  const lines = original.split(/\r?\n/);
  const list = lines.findIndex((line) => /^(?:clusters|contexts|users):\s*(?:#.*)?$/.test(line));
  const firstItem = lines.slice(list + 1).find((line) => /^ *- /.test(line));
  const indentSeq = list !== -1 && firstItem?.startsWith(' ') === true;
  const field = lines.findIndex((line) => /^ *(?:- | )(?:cluster|context|user):\s*(?:#.*)?$/.test(line));
  const inner = lines.slice(field + 1).find((line) => /^ *[^\s#]/.test(line));
  const indent = field === -1 || inner === undefined ? 2 : inner.search(/\S/) - (lines[field] ?? '').search(/[^\s-]/);
  return { indentSeq, indent: indent >= 1 && indent <= 8 ? indent : 2 };
}

function encode(pem: string): string {
  return Buffer.from(pem).toString('base64');
}
