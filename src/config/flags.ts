/** The flags of `up` that override `sandbar.yaml`, as data: the command line and the documentation are made from it. */
import type { Path } from './problem.ts';

/** What was given on the command line, as it was typed; values are checked together with the file's. */
export type ConfigFlags = {
  readonly name?: string;
  /** Null for none, whatever lies in the working directory. */
  readonly file?: string | null;
  readonly apiPort?: string;
  readonly httpPort?: string;
  readonly httpsPort?: string;
  readonly objectStorePort?: string;
  readonly objectStoreConsolePort?: string;
  readonly subnet?: string;
  readonly podSubnet?: string;
  readonly serviceSubnet?: string;
  readonly featureGate?: readonly string[];
  readonly bucket?: readonly string[];
  /** False for `--no-ingress`; true is the absence of the flag. */
  readonly ingress?: boolean;
  /** False for `--no-object-store`; true is the absence of the flag. */
  readonly objectStore?: boolean;
  /** False for `--no-registry`; true is the absence of the flag. */
  readonly registry?: boolean;
};

export type FlagDeclaration = {
  /** As commander wants it: `--http-port <port>`. */
  readonly syntax: string;
  readonly description: string;
  readonly isRepeatable?: boolean;
};

export const CONFIG_FLAGS: Readonly<Record<keyof ConfigFlags, FlagDeclaration>> = {
  name: { syntax: '--name <name>', description: 'name of the cluster' },
  file: { syntax: '--file <path>', description: 'configuration file' },
  apiPort: { syntax: '--api-port <port>', description: 'port of the API server on 127.0.0.1' },
  httpPort: { syntax: '--http-port <port>', description: "ingress's HTTP port on 127.0.0.1" },
  httpsPort: { syntax: '--https-port <port>', description: "ingress's HTTPS port on 127.0.0.1" },
  objectStorePort: { syntax: '--object-store-port <port>', description: "object store's S3 port on 127.0.0.1" },
  objectStoreConsolePort: {
    syntax: '--object-store-console-port <port>',
    description: "port of the object store's web console on 127.0.0.1",
  },
  subnet: { syntax: '--subnet <cidr>', description: 'subnet of the Docker network' },
  podSubnet: { syntax: '--pod-subnet <cidr>', description: "pods' subnet" },
  serviceSubnet: { syntax: '--service-subnet <cidr>', description: "Services' subnet" },
  featureGate: {
    syntax: '--feature-gate <name=boolean>',
    description: 'Kubernetes feature gate to turn on or off',
    isRepeatable: true,
  },
  bucket: { syntax: '--bucket <name>', description: 'bucket that exists after `up`', isRepeatable: true },
  ingress: { syntax: '--no-ingress', description: 'no ingress' },
  objectStore: { syntax: '--no-object-store', description: 'no object store' },
  registry: { syntax: '--no-registry', description: 'no image registry' },
};

/** One value that a flag (or variable) puts into the configuration, and the word that a message about it starts with. */
export type Override = { readonly path: Path; readonly value: unknown; readonly origin: string };

const SCALAR_PATHS = {
  name: ['name'],
  apiPort: ['ports', 'api'],
  httpPort: ['ports', 'http'],
  httpsPort: ['ports', 'https'],
  objectStorePort: ['ports', 'objectStore'],
  objectStoreConsolePort: ['ports', 'objectStoreConsole'],
  subnet: ['network', 'subnet'],
  podSubnet: ['network', 'pods'],
  serviceSubnet: ['network', 'services'],
} as const satisfies Partial<Record<keyof ConfigFlags, Path>>;

/** What the flags put into the configuration; `'+'` at the end of a path appends to a list. */
export function overridesOf(flags: ConfigFlags): readonly Override[] {
  const scalars = Object.entries(SCALAR_PATHS).flatMap(([key, path]): Override[] => {
    const text = flags[key as keyof typeof SCALAR_PATHS];
    if (text === undefined) return [];
    const value = path[0] === 'ports' && /^\d{1,9}$/.test(text) ? Number(text) : text;
    return [{ path, value, origin: flagWord(key as keyof ConfigFlags) }];
  });
  const gates = (flags.featureGate ?? []).map((text): Override => {
    const [name = '', value = ''] = text.split('=', 2);
    const isBoolean = value === 'true' || value === 'false';
    return {
      path: ['kubernetes', 'featureGates', name],
      value: isBoolean ? value === 'true' : value,
      origin: flagWord('featureGate'),
    };
  });
  const buckets = (flags.bucket ?? []).map((value): Override => ({
    path: ['objectStore', 'buckets', '+'],
    value,
    origin: flagWord('bucket'),
  }));
  return [
    ...scalars,
    ...gates,
    ...buckets,
    ...(flags.ingress === false ? [{ path: ['ingress', 'enabled'], value: false, origin: flagWord('ingress') }] : []),
    ...(flags.objectStore === false
      ? [{ path: ['objectStore', 'enabled'], value: false, origin: flagWord('objectStore') }]
      : []),
    ...(flags.registry === false ? [{ path: ['registry'], value: false, origin: flagWord('registry') }] : []),
  ];
}

/** Of all options of a command, those that say how the cluster is to be: neither its name nor its file nor a default. */
export function recordedFlags(flags: ConfigFlags): ConfigFlags {
  const keys = (Object.keys(CONFIG_FLAGS) as (keyof ConfigFlags)[]).filter((key) => key !== 'name' && key !== 'file');
  const entries = keys.map((key) => [key, flags[key]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== true));
}

function flagWord(key: keyof ConfigFlags): string {
  return CONFIG_FLAGS[key].syntax.split(' ', 1).join('');
}
