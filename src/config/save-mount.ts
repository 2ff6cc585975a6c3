/** Writes a mount into the text of `sandbar.yaml`; every line that it is not about stays as it is. */
import path from 'node:path';
import {
  isMap,
  isScalar,
  isSeq,
  parseDocument,
  stringify,
  type Node,
  type Pair,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import { SandbarError } from '../model/errors.ts';
import { formatWorkload } from '../model/mounts.ts';
import { interpolate } from './interpolate.ts';
import { formatVolume, parsePath, parseVolume, parseWorkload, type BindVolume } from './mount-syntax.ts';

/**
 * The text with a mount of the workload that `key` names; one at the same target is replaced. `text` is undefined where
 * there is no file yet.
 */
export function saveMount(text: string | undefined, key: string, volume: BindVolume): string {
  const before = text ?? '';
  const document = parseDocument(before);
  const [error] = document.errors;
  if (error !== undefined) throw cannotWrite(`it is not valid YAML: ${error.message}`, key, volume);
  const edit = planEdit(document.contents, { text: before, key, volume });
  const added = before.includes('\r\n') ? edit.text.replaceAll('\n', '\r\n') : edit.text;
  const after = `${before.slice(0, edit.start)}${added}${before.slice(edit.end)}`;
  // A file is never made worse, however unusual its form is.
  if (parseDocument(after).errors.length > 0) throw cannotWrite('its form is not understood', key, volume);
  return after;
}

/** How a source is written in a file: relative within the file's folder, else as it is. */
export function formatSource(source: string, directory: string | undefined): string {
  if (directory === undefined) return source;
  const relative = path.relative(directory, source);
  const isInside = relative !== '..' && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative);
  if (!isInside) return source;
  return relative === '' ? '.' : `./${relative.split(path.sep).join('/')}`;
}

function cannotWrite(reason: string, key: string, volume: BindVolume): SandbarError {
  return new SandbarError('CONFIG_INVALID', `the mount cannot be written to sandbar.yaml: ${reason}`, {
    hint: `write it there yourself, below mounts: ${JSON.stringify({ [key]: [entryOf(volume)] })}`,
  });
}

type Wish = { readonly text: string; readonly key: string; readonly volume: BindVolume };
type Edit = { readonly start: number; readonly end: number; readonly text: string };

/** The smallest change of the text that has the effect. */
function planEdit(top: Node | null, wish: Wish): Edit {
  const { text, key, volume } = wish;
  const list = [entryOf(volume)];
  if (top === null || isEmptyScalar(top)) return appendToFile(wish);
  if (!isMap(top)) throw cannotWrite('it is not a mapping', key, volume);
  const mounts = findPair(top, (name) => name === 'mounts');
  if (mounts === undefined) {
    const isLast = !/^\.\.\./m.test(text);
    return isLast && top.flow !== true ? appendToFile(wish) : addPair(top, 'mounts', { [key]: list }, wish);
  }
  if (isEmptyScalar(mounts.value)) return fillPair(mounts, top, { [key]: list }, wish);
  if (!isMap(mounts.value)) throw cannotWrite('its mounts are written in a way that cannot be added to', key, volume);
  const workload = findPair(mounts.value, (name) => isSameWorkload(name, key));
  if (workload === undefined) return addPair(mounts.value, key, list, wish);
  if (isEmptyScalar(workload.value)) return fillPair(workload, mounts.value, list, wish);
  if (!isSeq(workload.value)) throw cannotWrite(`its mounts of ${key} are not written as a list`, key, volume);
  return putItem(workload.value, wish);
}

/** The short syntax where it can say it, else the long one. A dollar sign would start a variable. */
function entryOf(volume: BindVolume): unknown {
  const escaped = (value: string): string => value.replaceAll('$', '$$$$');
  const short = formatVolume(volume);
  if (short !== undefined) return escaped(short);
  const { source, target, isReadOnly, createsSource, excluded } = volume;
  return {
    type: 'bind',
    source: escaped(source),
    target: escaped(target),
    ...(isReadOnly ? { read_only: true } : {}),
    ...(createsSource ? {} : { bind: { create_host_path: false } }),
    ...(excluded.length === 0 ? {} : { exclude: excluded.map(escaped) }),
  };
}

function appendToFile({ text, key, volume }: Wish): Edit {
  const separator = text === '' || text.endsWith('\n') ? '' : '\n';
  const block = formatBlock({ mounts: { [key]: [entryOf(volume)] } }, 0);
  return { start: text.length, end: text.length, text: `${separator}${block}\n` };
}

/** A pair behind the last one of a block, or before the first one of a mapping in braces. */
function addPair(map: YAMLMap, key: string, value: unknown, { text }: Wish): Edit {
  if (map.flow === true) {
    return insertInFlow(map, JSON.stringify({ [key]: value }).slice(1, -1));
  }
  return insertLine(endOf(map, text), formatBlock({ [key]: value }, columnOf(map, text)), text);
}

/** The value of a key that has none yet. */
function fillPair(pair: Pair, map: YAMLMap, value: unknown, { text }: Wish): Edit {
  const { value: node, key } = pair as Pair<Node, Node | null>;
  const keyEnd = key.range?.[1] ?? 0;
  const [start, end] = node?.range ?? [keyEnd, keyEnd];
  if (map.flow !== true && start === end) {
    return insertLine(start, formatBlock(value, columnOf(map, text) + 2), text);
  }
  // Within braces, or where `null` is written, the value has to stay on its line.
  return { start, end, text: `${text[start - 1] === ' ' ? '' : ' '}${JSON.stringify(value)}` };
}

/** In the place of the item that has the same target, else behind the last one. */
function putItem(list: YAMLSeq, { text, volume }: Wish): Edit {
  const entry = entryOf(volume);
  const items = list.items as readonly Node[];
  const same = items.find((item) => findTarget(item) === volume.target);
  if (same?.range) {
    const [start] = same.range;
    const end = endOf(same, text);
    const value = list.flow === true ? JSON.stringify(entry) : formatBlock(entry, start - lineStart(text, start));
    return { start, end, text: value.trimStart() };
  }
  if (list.flow === true) return insertInFlow(list, JSON.stringify(entry));
  return insertLine(endOf(list, text), formatBlock([entry], columnOf(list, text)), text);
}

/** Target of an item, as far as it can be known without the variables of the environment. */
function findTarget(item: Node): string | undefined {
  const written: unknown = isMap(item) ? item.get('target') : isScalar(item) ? item.value : undefined;
  if (typeof written !== 'string') return undefined;
  const withDefaults = interpolate(written, {});
  const others = Object.fromEntries(withDefaults.unsetVariables.map((name) => [name, './unset']));
  const text = interpolate(written, others).text;
  if (isMap(item)) {
    const parsed = parsePath(text);
    return 'problem' in parsed ? undefined : parsed.path;
  }
  const parsed = parseVolume(text);
  return 'problem' in parsed ? undefined : parsed.volume.target;
}

function isSameWorkload(name: string, key: string): boolean {
  const [first, second] = [name, key].map((text) => {
    const parsed = parseWorkload(text, { namespace: 'default' });
    return 'problem' in parsed ? text : formatWorkload(parsed.workload);
  });
  return first === second;
}

function findPair(map: YAMLMap, isWanted: (name: string) => boolean): Pair | undefined {
  return map.items.find(({ key }) => isScalar(key) && isWanted(String(key.value)));
}

function isEmptyScalar(node: unknown): boolean {
  return node === null || node === undefined || (isScalar(node) && node.value === null);
}

/** Where a collection or scalar ends: behind its last character that is neither space nor comment. */
function endOf(node: Node, text: string): number {
  if (isMap(node) && node.flow !== true) {
    const last = node.items.at(-1);
    const inner = (last?.value ?? last?.key) as Node | undefined;
    return inner === undefined ? (node.range?.[1] ?? 0) : endOf(inner, text);
  }
  if (isSeq(node) && node.flow !== true) {
    const last = node.items.at(-1) as Node | undefined;
    return last === undefined ? (node.range?.[1] ?? 0) : endOf(last, text);
  }
  return node.range?.[1] ?? 0;
}

/** Before the first item of a collection in brackets: what stands behind may end with a comma or a comment. */
function insertInFlow(node: YAMLMap | YAMLSeq, inner: string): Edit {
  const start = (node.range?.[0] ?? 0) + 1;
  return { start, end: start, text: node.items.length === 0 ? inner : `${inner}, ` };
}

/** Below the line in which something ends, and below the comment behind it. */
function insertLine(end: number, line: string, text: string): Edit {
  // The text of a block scalar ends with its line.
  const lineEnd = end > 0 && text[end - 1] === '\n' ? end - 1 : text.indexOf('\n', end);
  if (lineEnd === -1) return { start: text.length, end: text.length, text: `\n${line}\n` };
  return { start: lineEnd + 1, end: lineEnd + 1, text: `${line}\n` };
}

function columnOf(node: Node, text: string): number {
  const start = node.range?.[0] ?? 0;
  return start - lineStart(text, start);
}

function lineStart(text: string, offset: number): number {
  return text.lastIndexOf('\n', offset - 1) + 1;
}

function formatBlock(value: unknown, column: number): string {
  const indent = ' '.repeat(column);
  return stringify(value, { lineWidth: 0 })
    .replace(/\n$/, '')
    .split('\n')
    .map((line) => `${indent}${line}`)
    .join('\n');
}
