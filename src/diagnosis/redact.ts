/** Takes secrets out of what leaves the machine. What is known to be one goes wherever it stands; the rest by its form. */
import type { Identity } from '../model/identity.ts';
import type { KubernetesObject } from '../model/resources.ts';

const REDACTED = '<redacted>';

/** Shorter values are words that stand everywhere: to take them out would hide more than it saves. */
const SHORTEST_SECRET = 6;

const SECRET_WORDS =
  'pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|account|private)[-_]?key|credential|authorization|cookie';
const SECRET_NAME = new RegExp(SECRET_WORDS, 'i');
/** In quotes, also as JSON has them within a string of its own, or up to where a value ends. */
const VALUE = `\\\\+"(?:[^"\\\\]|\\\\+[^"\\\\])*\\\\*"|"(?:[^"\\\\]|\\\\.)*"|'[^']*'|[^\\s,;&}]+`;
/** Names are as long as these: without a bound, a long word is searched from every one of its letters to its end. */
const NAMED_VALUE = new RegExp(`((?:${SECRET_WORDS})[\\w.-]{0,64}(?:\\\\*["'])?\\s{0,8}[:=]\\s{0,8})(${VALUE})`, 'gi');
/** `--password hunter22` in one string: an option's name goes before its value without a sign between. */
const OPTION_VALUE = new RegExp(
  `((?<![\\w.-])--?[\\w-]{0,64}(?:${SECRET_WORDS})[\\w-]{0,64}\\s+)(?!-)(${VALUE})`,
  'gi',
);

/** Clients of databases whose `-p` is a password. */
const CLIENTS =
  '(?:mysql|mysqladmin|mysqldump|mariadb|mariadb-admin|mariadb-dump|mongo|mongosh|mongodump|mongorestore)';
const CLIENT = new RegExp(`(?:^|/)${CLIENTS}$`);
/** `mysql -u root -phunter22`, on one line. */
const CLIENT_PASSWORD = new RegExp(`(\\b${CLIENTS}\\b[^\\n|;&]{0,400}?\\s-p\\s*)(?!-)(${VALUE})`, 'g');

/** Forms of secrets, whoever they belong to. */
const FORMS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]*?(?:-----END \1-----|$)/g, REDACTED],
  // The same in base64.
  [/LS0tLS1CRUdJTi[A-Za-z0-9+/=]+/g, REDACTED],
  [/\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g, REDACTED],
  [/\b(Bearer|Basic)\s+[\w.~+/=-]{6,}/gi, `$1 ${REDACTED}`],
  // What stands before the last @ of a URL; passwords that were not encoded have slashes in them.
  [/(:\/\/)[^\s/@:"']{0,256}:[^\s@"']{1,256}@/g, `$1${REDACTED}@`],
  [/(:\/\/)[^\s/@"']{1,512}@/g, `$1${REDACTED}@`],
  [OPTION_VALUE, `$1${REDACTED}`],
  [CLIENT_PASSWORD, `$1${REDACTED}`],
  [NAMED_VALUE, `$1${REDACTED}`],
];

/** Values that are secrets wherever they stand, in the forms in which they are written down. */
export function secretValues(values: readonly string[]): readonly string[] {
  const lines = values.flatMap((value) => [value, ...value.split('\n')]).map((value) => value.trim());
  const long = lines.filter((value) => value.length >= SHORTEST_SECRET && !value.startsWith('-----'));
  const forms = long.flatMap((value) => [
    value,
    Buffer.from(value).toString('base64'),
    encodeURIComponent(value),
    JSON.stringify(value).slice(1, -1),
  ]);
  return [...new Set(forms)].toSorted((a, b) => b.length - a.length);
}

/** Keys and credentials of a cluster. */
export function secretsOfIdentity(identity: Identity): readonly string[] {
  const { ca, frontProxyCa, ingressAuthority, certificates, serviceAccount, objectStore } = identity;
  // One that an older Sandbar made has none.
  const parts: Partial<Identity> = identity;
  const pairs = [ca, frontProxyCa, ingressAuthority, ...Object.values(certificates)];
  return [
    ...pairs.map(({ key }) => key),
    serviceAccount.privateKey,
    objectStore.secretAccessKey,
    objectStore.accessKeyId,
    parts.encryptionKey ?? '',
  ];
}

/** The values of a Secret, as its users see them. */
export function secretsOfObject(secret: KubernetesObject): readonly string[] {
  const data = Object.values((secret['data'] ?? {}) as Readonly<Record<string, string>>);
  return data.map((value) => Buffer.from(value, 'base64').toString());
}

export function redactText(text: string, known: readonly string[]): string {
  const withoutKnown = known.reduce((rest, value) => rest.replaceAll(value, REDACTED), text);
  return FORMS.reduce((rest, [form, replacement]) => rest.replace(form, replacement), withoutKnown);
}

/** The same of YAML: what stands below a key of a secret goes too. */
export function redactYaml(text: string, known: readonly string[]): string {
  let secretIndent: number | undefined;
  const lines = text.split('\n').flatMap((line) => {
    const indent = line.search(/\S/);
    if (secretIndent !== undefined && (indent === -1 || indent > secretIndent)) return [];
    secretIndent = undefined;
    const [, key, value = ''] = /^\s*(?:- )?["']?([\w.-]+)["']?\s*:\s*(.*)$/.exec(line) ?? [];
    if (key === undefined || !SECRET_NAME.test(key)) return [line];
    secretIndent = indent;
    return [`${line.slice(0, line.length - value.length).trimEnd()} ${REDACTED}`];
  });
  return redactText(lines.join('\n'), known);
}

/** A value of JSON, string by string: names of things stay, values of variables and headers go. */
export function redactJson(value: unknown, known: readonly string[]): unknown {
  if (typeof value === 'string') return redactText(value, known);
  if (Array.isArray(value)) return redactList(value, known);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(
        ([key]) => !['managedFields', 'kubectl.kubernetes.io/last-applied-configuration', 'caBundle'].includes(key),
      )
      .map(([key, inner]) => [key, redactField(key, inner, known)]),
  );
}

/** An object as it may be shown: of ConfigMaps the names of their keys alone. */
export function redactObject(object: KubernetesObject, known: readonly string[]): unknown {
  const keys = ['data', 'binaryData', 'stringData'].filter((field) => object[field] !== undefined);
  const masked = keys.map((field) => [
    field,
    Object.fromEntries(Object.keys(object[field] as object).map((key) => [key, REDACTED])),
  ]);
  return redactJson({ ...object, ...Object.fromEntries(masked) }, known);
}

function redactField(key: string, value: unknown, known: readonly string[]): unknown {
  // `env` of containers, headers of probes: whatever they are called, they may be secrets.
  if ((key === 'env' || key === 'httpHeaders') && Array.isArray(value)) {
    return value.map((entry: unknown) =>
      entry !== null && typeof entry === 'object' && 'value' in entry ? { ...entry, value: REDACTED } : entry,
    );
  }
  // Docker's own form.
  if (key === 'Env' && Array.isArray(value)) {
    return value.map((entry: unknown) => (typeof entry === 'string' ? entry.replace(/=.*$/s, `=${REDACTED}`) : entry));
  }
  const isNamed = SECRET_NAME.test(key) && !/(?:name|ref|keys?|keyref|count)$/i.test(key);
  return isNamed && typeof value === 'string' ? REDACTED : redactJson(value, known);
}

/** Arguments of programs: what follows an option of a secret is one; `-p` is one where the program says so. */
function redactList(list: readonly unknown[], known: readonly string[]): readonly unknown[] {
  const isClient = list.some((entry) => typeof entry === 'string' && CLIENT.test(entry));
  return list.map((entry, index) => {
    if (typeof entry !== 'string') return redactJson(entry, known);
    if (isClient && /^-p./.test(entry)) return `-p${REDACTED}`;
    const previous = list[index - 1];
    const isOption = typeof previous === 'string' && /^--?[\w-]+$/.test(previous);
    const isValue = isOption && (SECRET_NAME.test(previous) || (isClient && previous === '-p'));
    return isValue ? REDACTED : redactJson(entry, known);
  });
}
