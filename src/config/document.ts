/** The text of `sandbar.yaml` → plain values with variables replaced, and the way back from a value to its place. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, visit, type Document, type Node } from 'yaml';
import type { Diagnostic } from '../model/errors.ts';
import type { Environment } from './environment.ts';
import { interpolate } from './interpolate.ts';
import { formatPath, type Path } from './problem.ts';
import { findSchemaAt } from './schema.ts';

export type Place = { readonly line: number; readonly column: number };

export type ConfigDocument = {
  readonly value: unknown;
  readonly diagnostics: readonly Diagnostic[];
  readonly warnings: readonly Diagnostic[];
  /** Place of a value or of its key; of the nearest thing around it when it is not written itself. */
  locate(path: Path, target: 'key' | 'value'): Place | undefined;
};

/** Parses the file as far as it can be; what is wrong with it is in `diagnostics`. */
export function parseConfigDocument(file: string, text: string, env: Environment): ConfigDocument {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, merge: true });
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const isReadable = document.errors.every((error) => error.code === 'DUPLICATE_KEY');
  // Where YAML cannot be read, everything after the first error follows from it.
  const syntax = document.errors.slice(0, isReadable ? undefined : 1).map((error): Diagnostic => {
    const suggestion = findSyntaxSuggestion(text, error.pos[0]);
    const explanation = { message: lowerFirst(error.message), ...(suggestion === undefined ? {} : { suggestion }) };
    return { file, ...placeOf(error.pos[0]), ...explanation };
  });
  const interpolated = isReadable ? interpolateDocument(document, env) : { problems: [], warnings: [] };
  const locate: ConfigDocument['locate'] = (path, target) => {
    const node = target === 'key' ? findKey(document, path) : findNode(document, path);
    const offset = (node ?? findNearestNode(document, path))?.range?.[0];
    return offset === undefined ? undefined : placeOf(offset);
  };
  const { value, failure } = isReadable ? toValue(document) : {};
  return {
    value,
    diagnostics: [
      ...syntax,
      ...(failure === undefined ? [] : [{ file, line: 1, column: 1, message: lowerFirst(failure) }]),
      ...interpolated.problems.map((problem) => ({ file, ...locateNode(problem, placeOf) })),
    ],
    warnings: interpolated.warnings.map((problem) => ({ file, ...locateNode(problem, placeOf) })),
    locate,
  };
}

/** A variable's braces are YAML's own inside of `{ }` and `[ ]`: the mistake that files with variables have most. */
function findSyntaxSuggestion(text: string, offset: number): string | undefined {
  const line = text.slice(text.lastIndexOf('\n', offset) + 1, offset);
  return line.endsWith('$') ? 'inside of { } and [ ], put "${…}" in quotes' : undefined;
}

/** An alias without its anchor shows only now. */
function toValue(document: Document): { readonly value?: unknown; readonly failure?: string } {
  try {
    return { value: withoutEmptyValues(document.toJS(), []) };
  } catch (error) {
    if (error instanceof ReferenceError) return { failure: error.message };
    throw error;
  }
}

type NodeProblem = { readonly node: Node; readonly message: string; readonly suggestion?: string };

function locateNode(
  { node, ...rest }: NodeProblem,
  placeOf: (offset: number) => Place,
): Place & Omit<NodeProblem, 'node'> {
  return { ...placeOf(node.range?.[0] ?? 0), ...rest };
}

/** Replaces variables in every scalar value (not in keys), in place. */
function interpolateDocument(
  document: Document,
  env: Environment,
): { readonly problems: readonly NodeProblem[]; readonly warnings: readonly NodeProblem[] } {
  const problems: NodeProblem[] = [];
  const warnings: NodeProblem[] = [];
  visit(document, {
    Scalar(key, node, ancestors) {
      if (key === 'key') return;
      const path = pathOf(key, ancestors);
      if (typeof node.value !== 'string') {
        // `v: 4` and `event-ttl: 1.10` are flags' texts: what was written counts, not the number that YAML reads.
        if (typesAt(path).includes('string') && node.source !== undefined && node.value !== null)
          node.value = node.source;
        return;
      }
      const result = interpolate(node.value, env);
      if (!result.isInterpolated) return;
      problems.push(...result.problems.map((problem) => ({ node, ...problem })));
      warnings.push(
        ...result.unsetVariables.map((name) => ({
          node,
          message: `variable ${name} is not set: ${formatPath(path)} gets an empty text in its place`,
          suggestion: `set ${name}, or write \${${name}:-default}`,
        })),
      );
      node.value = cast(result.text, path);
    },
  });
  return { problems, warnings };
}

/** A text that came out of a variable becomes what the schema wants at its place, as `http: ${PORT:-80}` needs. */
function cast(text: string, path: Path): unknown {
  const types = typesAt(path);
  const isFree = findSchemaAt(path)?.type === undefined;
  if (types.includes('string')) return text;
  if ((isFree || types.includes('integer')) && /^-?\d{1,15}$/.test(text)) return Number(text);
  if ((isFree || types.includes('boolean')) && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

/** Types of a scalar for which the schema leaves a choice, e.g. the value of a flag. */
function typesAt(path: Path): readonly string[] {
  const type = findSchemaAt(path)?.type;
  if (type === undefined) return [];
  if (typeof type === 'string') return [type];
  return type.includes('object') ? type.filter((name) => name !== 'object') : type;
}

/** `ingress:` with nothing behind it means the same as no `ingress` at all; only free-form values keep their nulls. */
function withoutEmptyValues(value: unknown, path: Path): unknown {
  if (Array.isArray(value)) return value.map((item, index) => withoutEmptyValues(item, [...path, index]));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .filter(([key, inner]) => inner !== null || findSchemaAt([...path, key])?.type === undefined)
    .map(([key, inner]) => [key, withoutEmptyValues(inner, [...path, key])]);
  return Object.fromEntries(entries);
}

function pathOf(key: unknown, ancestors: readonly unknown[]): Path {
  const path: (string | number)[] = [];
  for (const [index, ancestor] of ancestors.entries()) {
    const child: unknown = ancestors[index + 1];
    if (isSeq(ancestor)) path.push(child === undefined ? Number(key) : ancestor.items.indexOf(child));
    else if (isPairLike(ancestor) && isScalar(ancestor.key)) path.push(String(ancestor.key.value));
  }
  return path;
}

function isPairLike(value: unknown): value is { readonly key: unknown; readonly value: unknown } {
  return typeof value === 'object' && value !== null && 'key' in value && 'value' in value && !isScalar(value);
}

function findNode(document: Document, path: Path): Node | undefined {
  return path.reduce<Node | undefined>((node, part) => {
    const target = isAlias(node) ? node.resolve(document) : node;
    if (!isMap(target) && !isSeq(target)) return undefined;
    return target.get(part, true);
  }, document.contents ?? undefined);
}

function findKey(document: Document, path: Path): Node | undefined {
  const last = path.at(-1);
  const parent = findNode(document, path.slice(0, -1));
  if (!isMap(parent)) return undefined;
  const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === String(last));
  return isScalar(pair?.key) ? pair.key : undefined;
}

function findNearestNode(document: Document, path: Path): Node | undefined {
  for (let length = path.length - 1; length > 0; length -= 1) {
    const node = findKey(document, path.slice(0, length)) ?? findNode(document, path.slice(0, length));
    if (node !== undefined) return node;
  }
  return document.contents ?? undefined;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
