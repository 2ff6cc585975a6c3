/** docs/configuration.md and the published schema, made from what the code itself uses. */
import { ENVIRONMENT_VARIABLES } from './environment.ts';
import { CONFIG_FLAGS } from './flags.ts';
import { VOLUME_MODES } from './mount-syntax.ts';
import { formatPath } from './problem.ts';
import { CONFIG_SCHEMA, SCHEMA_FILE, type JsonSchema } from './schema.ts';

/** Text of the published JSON Schema. */
export function formatSchema(): string {
  return `${JSON.stringify(CONFIG_SCHEMA, undefined, 2)}\n`;
}

/** Text of docs/configuration.md. */
export function formatConfigurationGuide(): string {
  return [
    '# Configuration',
    '',
    '<!-- Made from src/config by its unit test; change it there. -->',
    '',
    'Sandbar needs no configuration. What it can be told stands in `sandbar.yaml`, in flags of `sandbar up` and in the',
    'environment. A flag wins over a variable, a variable over the file, the file over the default.',
    '',
    '`sandbar config validate` checks the file without touching anything; every problem is shown at once, with file, line',
    `and column. The schema is published as [\`${SCHEMA_FILE}\`](${SCHEMA_FILE.replace('docs/', '')}); an editor uses it with`,
    '`sandbar config schema > sandbar.schema.json` and this first line:',
    '',
    '```yaml',
    '# yaml-language-server: $schema=./sandbar.schema.json',
    '```',
    '',
    '## Where the file is found',
    '',
    'The one that `--file` or `SANDBAR_FILE` names; else `sandbar.yaml` or `sandbar.yml` in the working directory or the',
    'nearest directory above it, up to the root of the Git repository or the home directory. Paths in the file are',
    'relative to the file.',
    '',
    '## Example',
    '',
    '```yaml',
    ...EXAMPLE,
    '```',
    '',
    '## Keys',
    '',
    ...keySections(),
    ...mountGuide(),
    '## Settings that are not yours to make',
    '',
    'Arguments and kubelet fields on which the cluster itself stands are refused with the reason: addresses and ports,',
    'the datastore, certificates and kubeconfigs, subnets and DNS (`network` sets them), feature gates',
    '(`kubernetes.featureGates` sets them for every component), and files, of which the containers have none of yours.',
    '',
    '## Variables in the file',
    '',
    'In values, as in Compose files. Inside of `{ }` and `[ ]`, YAML wants quotes around them.',
    '',
    ...table(
      ['written', 'becomes'],
      [
        ['`${VAR}`, `$VAR`', 'the value of `VAR`; nothing, with a warning, when it is not set'],
        ['`${VAR:-default}`', '`default` when `VAR` is not set or empty; `${VAR-default}` only when it is not set'],
        [
          '`${VAR:?message}`',
          'an error with `message` when `VAR` is not set or empty; `${VAR?message}` only when it is not set',
        ],
        ['`${VAR:+other}`', '`other` when `VAR` is set and not empty; `${VAR+other}` when it is set'],
        ['`$$`', 'a dollar sign'],
      ],
    ),
    '',
    '## Flags of `sandbar up`',
    '',
    ...table(
      ['flag', 'meaning'],
      Object.values(CONFIG_FLAGS).map(({ syntax, description, isRepeatable }) => [
        `\`${syntax}\``,
        `${description}${isRepeatable === true ? '; may be repeated' : ''}`,
      ]),
    ),
    '',
    '## Environment variables',
    '',
    ...table(
      ['variable', 'meaning'],
      Object.entries(ENVIRONMENT_VARIABLES).map(([name, description]) => [`\`${name}\``, description]),
    ),
    '',
    '### Proxies and certificates',
    '',
    'The node pulls images through the proxy of `HTTP_PROXY` and `HTTPS_PROXY`. One on `localhost` is reached as',
    '`host.sandbar.internal`, so it must listen on more than loopback where Docker runs without a virtual machine.',
    "The cluster's own subnets and names are added to `NO_PROXY`.",
    '',
    'What comes from the environment (proxies, certificates, `${VAR}` in the file) is read anew by every command and not',
    'recorded: `start`, `reset` or `snapshot restore` from a shell without `HTTP_PROXY` changes the agent as `up` would',
    'there.',
    '',
    'The node trusts the certificates of `caCertificates` and those that `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS` name,',
    "without the public roots that it has anyway. Where they name the system's own bundle, the certificates that were",
    'added to it locally are taken (on Debian those below `/usr/local/share/ca-certificates`).',
    '',
  ].join('\n');
}

const EXAMPLE = [
  'name: dev',
  'kubernetes:',
  '  featureGates: { InPlacePodLevelResourcesVerticalScaling: true }',
  '  apiServerArguments: { event-ttl: 24h }',
  'network:',
  '  subnet: 172.30.7.0/24',
  'ports:',
  '  http: ${HTTP_PORT:-8080}',
  'objectStore:',
  '  buckets:',
  '    - pictures',
  '    - { name: reports, versioning: true }',
  'caCertificates: [./corp.pem]',
  'mirrors:',
  '  docker.io: [https://mirror.example:5000]',
  'manifests: [k8s/*.yaml]',
  'mounts:',
  '  deployment/web:',
  '    - ${SOURCE:-./src}:/app/src:ro',
  '    - { type: bind, source: ./data, target: /app/data, exclude: [cache] }',
];

/** The example of the guide, which a test loads. */
export const CONFIG_EXAMPLE = `${EXAMPLE.join('\n')}\n`;

/** Keys of the long syntax, and modes of the short one. */
function mountGuide(): readonly string[] {
  const { properties } = CONFIG_SCHEMA.properties.mounts.additionalProperties.items;
  const { bind, ...plain } = properties;
  const keys: Readonly<Record<string, JsonSchema>> = plain;
  return [
    '## Mounts',
    '',
    'A key names a workload as kubectl does: `deployment/web`, `sts/db/main` for one of its containers, `shop/deploy/web`',
    'in a namespace other than `default`. Its mounts are written as in a Compose file, and follow the workload however it',
    'is applied, replaced or scaled.',
    '',
    '```yaml',
    ...MOUNTS,
    '```',
    '',
    'A relative source starts at the folder of the file, and must not leave it through a symbolic link; one that is missing',
    'is made, as a folder. A source is bound as it is, whatever the path holds; the short syntax has no colons within',
    'paths, the long one does. Volumes with a name are only in Compose: write `./data:/x` for a folder, or give the',
    'workload a claim.',
    '',
    ...table(
      ['mode of the short syntax', 'meaning'],
      Object.entries(VOLUME_MODES).map(([mode, meaning]) => [`\`${mode}\``, meaning]),
    ),
    '',
    'Several stand behind each other with commas. `shared`, `rshared`, `slave`, `rslave` and `nocopy` are refused.',
    '',
    ...propertyTable(Object.entries(keys), []),
    ...propertyTable(Object.entries(bind.properties ?? {}), ['bind']),
    'Refused as sources: the whole disk, system folders, sockets of engines, the home folder itself and what holds',
    'credentials in it (`.ssh`, `.aws`, `.kube`, `.docker`, `.gnupg` and the like), since a file that came with a project',
    'could name them; `sandbar mount --allow-sensitive` takes the latter. Refused as targets: what would hide a system path',
    'of the container.',
    '',
  ];
}

const MOUNTS = [
  'mounts:',
  '  deployment/web:',
  '    - ./src:/app/src',
  '    - /app/src/node_modules # keeps what the image has there',
  '  job/import:',
  '    - type: bind',
  "      source: '~/Data: 2026'",
  '      target: /data',
  '      read_only: true',
  '      bind: { create_host_path: false }',
];

/** The guide's example of mounts, which a test loads. */
export const MOUNTS_EXAMPLE = `${MOUNTS.join('\n')}\n`;

type Property = readonly [key: string, schema: JsonSchema];

/** First the keys that stand alone, then a table for each section. */
function keySections(): readonly string[] {
  const properties: readonly Property[] = Object.entries(CONFIG_SCHEMA.properties);
  const sections = properties.filter(([, schema]) => schema.properties !== undefined);
  const plain = properties.filter(([, schema]) => schema.properties === undefined);
  return [
    ...propertyTable(plain, []),
    ...sections.flatMap(([key, schema]) => [
      `### \`${key}\``,
      '',
      schema.description ?? '',
      '',
      ...propertyTable(Object.entries(schema.properties ?? {}), [key]),
    ]),
  ];
}

function propertyTable(properties: readonly Property[], parent: readonly string[]): readonly string[] {
  const rows = properties.map(([key, schema]) => {
    const example = schema.examples?.[0];
    return [
      `\`${formatPath([...parent, key])}\``,
      typeWords(schema),
      schema.default === undefined ? '' : `\`${JSON.stringify(schema.default).replaceAll('"', '')}\``,
      `${schema.description ?? ''}${example === undefined ? '' : ` Example: \`${JSON.stringify(example)}\``}`,
    ];
  });
  return [...table(['key', 'type', 'default', 'meaning'], rows), ''];
}

function typeWords({ type, items, additionalProperties }: JsonSchema): string {
  switch (type) {
    case 'array':
      return `list of ${[items?.type ?? 'any'].flat().join(' or ')}`;
    case 'object':
      return typeof additionalProperties === 'object'
        ? `map of ${[additionalProperties.type ?? 'any'].flat().join(', ')}`
        : 'map';
    default:
      return String(type);
  }
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)];
}
