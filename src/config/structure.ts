/** Checks a configuration against the schema, in words, and takes out what does not fit so that the rest can be checked. */
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { findNearest } from './nearest.ts';
import { formatPath, type Path, type Problem } from './problem.ts';
import { CONFIG_SCHEMA, findSchemaAt, type JsonSchema, type WrittenConfig } from './schema.ts';

/** Compiled once: it takes longer than everything else here. */
let validate: ValidateFunction | undefined;

/** Everything that breaks the schema, and the configuration without it. */
export function checkStructure(value: unknown): {
  readonly config: WrittenConfig;
  readonly problems: readonly Problem[];
} {
  validate ??= new Ajv({ allErrors: true, allowUnionTypes: true, strictTypes: false, verbose: true }).compile(
    CONFIG_SCHEMA,
  );
  validate(value);
  // What a pattern refuses is refused by a rule too (rules.ts), which can say why.
  const errors = (validate.errors ?? []).filter((error) => error.keyword !== 'pattern');
  const refused = errors.map((error) => pathOf(error));
  const pruned = refused.reduce(withoutValueAt, value);
  return {
    // Sound: whatever the schema refuses was taken out.
    config: typeof pruned === 'object' && pruned !== null && !Array.isArray(pruned) ? pruned : {},
    problems: errors.map(explain),
  };
}

function explain(error: ErrorObject): Problem {
  const path = pathOf(error);
  const name = path.length === 0 ? 'the file' : formatPath(path);
  const params = error.params as Readonly<Record<string, unknown>>;
  switch (error.keyword) {
    case 'additionalProperties':
      return explainUnknownKey(path);
    case 'type':
      return { path, message: `${name} must be ${describeTypes(params['type'])}, not ${describeValue(error.data)}` };
    case 'minimum':
    case 'maximum':
      return {
        path,
        message: `${name} must be ${error.keyword === 'minimum' ? 'at least' : 'at most'} ${String(params['limit'])}, not ${describeValue(error.data)}`,
      };
    case 'required':
      return { path, message: `${name} has no ${String(params['missingProperty'])}` };
    default:
      return { path, message: `${name} ${error.message ?? 'is not valid'}` };
  }
}

function explainUnknownKey(path: Path): Problem {
  const key = String(path.at(-1));
  const parent = path.slice(0, -1);
  const known = Object.keys(findSchemaAt(parent)?.properties ?? {});
  const nearest = findNearest(key, known);
  const elsewhere = findKeyElsewhere(key, CONFIG_SCHEMA, []);
  const where = parent.length === 0 ? '' : ` in ${formatPath(parent)}`;
  const suggestion =
    nearest !== undefined
      ? `did you mean ${nearest}?`
      : elsewhere !== undefined
        ? `did you mean ${formatPath(elsewhere)}?`
        : `known keys: ${known.join(', ')}`;
  return { path, message: `unknown key ${key}${where}`, suggestion, isAboutKey: true };
}

/** Path at which the schema knows this very key, e.g. `objectStore.buckets` for `buckets`. */
function findKeyElsewhere(key: string, schema: JsonSchema, path: Path): Path | undefined {
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    if (name === key) return [...path, name];
    const found = findKeyElsewhere(key, inner, [...path, name]);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Path of the value, or of the unknown key, that an error is about. */
function pathOf(error: ErrorObject): Path {
  const parts = error.instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  if (error.keyword === 'additionalProperties') {
    parts.push(String((error.params as Readonly<Record<string, unknown>>)['additionalProperty']));
  }
  return parts.reduce<Path>((path, part) => {
    const isIndex = findSchemaAt(path)?.items !== undefined && /^\d+$/.test(part);
    return [...path, isIndex ? Number(part) : part];
  }, []);
}

/** A copy without the value at a path; in a list, `undefined` takes its place so that the others keep their indexes. */
function withoutValueAt(value: unknown, path: Path): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return undefined;
  if (Array.isArray(value)) {
    return value.map((item: unknown, index) => (index === key ? withoutValueAt(item, rest) : item));
  }
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return value;
  // The others keep their order: of two that exclude each other, the later one in the file is blamed.
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]: [string, unknown]) => {
      const pruned = name === key ? withoutValueAt(inner, rest) : inner;
      return name === key && pruned === undefined ? [] : [[name, pruned]];
    }),
  );
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: 'a text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  object: 'a mapping of keys to values',
  array: 'a list',
};

function describeTypes(types: unknown): string {
  const names = Array.isArray(types) ? types.map(String) : [String(types)];
  return names.map((name) => TYPE_WORDS[name] ?? name).join(', or ');
}

function describeValue(value: unknown): string {
  if (value === null || value === undefined) return 'empty';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  return JSON.stringify(value);
}
