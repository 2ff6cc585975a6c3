/** JSON Schema of `sandbar.yaml`: the only description of its structure. Checks, editor support and docs come from it. */
import { DEFAULT_KUBERNETES, KUBERNETES_VERSIONS } from '../model/versions.ts';

export type JsonSchema = {
  readonly $schema?: string;
  readonly $id?: string;
  readonly title?: string;
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly patternProperties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: boolean | JsonSchema;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
};

/** Values used where neither the file nor a flag names one. */
export const DEFAULTS = {
  name: 'dev',
  podSubnet: '10.244.0.0/16',
  serviceSubnet: '10.96.0.0/16',
  ports: { api: 6443, http: 80, https: 443, objectStore: 9000, objectStoreConsole: 9001 },
  region: 'us-east-1',
  registry: { name: 'sandbar-registry', port: 5001 },
} as const;

/** What the file may hold, as it is written; every part may be absent. `undefined` in a list: refused by the structure. */
export type WrittenConfig = {
  readonly name?: string;
  readonly kubernetes?: {
    readonly version?: string | number;
    readonly auditLog?: boolean | string;
    readonly encryptionAtRest?: boolean;
    readonly admissionPlugins?: {
      readonly enable?: readonly (string | undefined)[];
      readonly disable?: readonly (string | undefined)[];
      readonly configuration?: Readonly<Record<string, unknown>>;
    };
    readonly featureGates?: Readonly<Record<string, boolean>>;
    readonly apiServerArguments?: WrittenArguments;
    readonly controllerManagerArguments?: WrittenArguments;
    readonly schedulerArguments?: WrittenArguments;
    readonly kubeletArguments?: WrittenArguments;
    readonly kubeletConfiguration?: Readonly<Record<string, unknown>>;
  };
  readonly network?: { readonly subnet?: string; readonly pods?: string; readonly services?: string };
  readonly ports?: { readonly [Port in keyof typeof DEFAULTS.ports]?: number };
  readonly ingress?: { readonly enabled?: boolean };
  readonly gatewayApi?: boolean;
  readonly networkPolicy?: boolean;
  readonly objectStore?: {
    readonly enabled?: boolean;
    readonly region?: string;
    readonly buckets?: readonly (WrittenBucket | undefined)[];
  };
  readonly metrics?: boolean;
  readonly caCertificates?: readonly (string | undefined)[];
  readonly mirrors?: Readonly<Record<string, readonly (string | undefined)[]>>;
  readonly registry?:
    boolean | { readonly name?: string; readonly port?: number; readonly mirrors?: readonly (string | undefined)[] };
  readonly manifests?: readonly (string | undefined)[];
  readonly mounts?: Readonly<Record<string, readonly (string | WrittenMount | undefined)[]>>;
  readonly publish?: readonly (string | undefined)[];
};

type WrittenArguments = Readonly<Record<string, string>>;
/** The long syntax of Compose, and `exclude`. `type` and `target` are absent only where the structure refused them. */
export type WrittenMount = {
  readonly type?: string;
  readonly source?: string;
  readonly target?: string;
  readonly read_only?: boolean;
  readonly consistency?: string;
  readonly bind?: {
    readonly create_host_path?: boolean;
    readonly propagation?: string;
    readonly selinux?: string;
  };
  readonly exclude?: readonly (string | undefined)[];
};
type WrittenBucket = string | { readonly name: string; readonly versioning?: boolean };

/** Where the schema is published; editors take it from the first line of the file. */
export const SCHEMA_FILE = 'docs/sandbar.schema.json';

const IPV4_SUBNET = String.raw`^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$`;
const BUCKET_NAME = '^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$';

export const CONFIG_SCHEMA = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'sandbar.yaml',
  description: 'A Sandbar cluster. Every key is optional.',
  type: 'object',
  additionalProperties: false,
  patternProperties: { '^x-': { description: 'Ignored: a place for YAML anchors.' } },
  properties: {
    name: {
      description: 'Name of the cluster: up to 32 lower-case letters, digits and inner hyphens.',
      type: 'string',
      pattern: '^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$',
      default: DEFAULTS.name,
    },
    kubernetes: section('Settings of the Kubernetes components.', {
      version: {
        description: `Minor version: ${Object.keys(KUBERNETES_VERSIONS).join(' or ')}. One that is not the default is built from source at first, which takes minutes.`,
        type: ['string', 'number'],
        default: DEFAULT_KUBERNETES,
        examples: ['1.35'],
      },
      auditLog: {
        description:
          'Whether requests are logged, for `sandbar logs audit`: `true` logs what people and their programs do, without contents; a file is an audit policy (audit.k8s.io/v1). 40 MB at most are kept.',
        type: ['boolean', 'string'],
        default: false,
        examples: ['./audit-policy.yaml'],
      },
      encryptionAtRest: {
        description:
          'Whether Secrets are encrypted in the datastore, from when they are written next. The key is in the volume `pki`.',
        type: 'boolean',
        default: false,
      },
      admissionPlugins: section("Admission plugins, besides upstream's defaults.", {
        enable: {
          description: 'Plugins that are on in addition.',
          type: 'array',
          items: { type: 'string' },
          examples: [['AlwaysPullImages']],
        },
        disable: {
          description: 'Plugins that are off.',
          type: 'array',
          items: { type: 'string' },
          examples: [['DefaultStorageClass']],
        },
        configuration: {
          description: 'Plugin → its configuration, as it stands below `configuration` in an AdmissionConfiguration.',
          type: 'object',
          additionalProperties: { type: 'object', additionalProperties: true },
          examples: [
            {
              PodSecurity: {
                apiVersion: 'pod-security.admission.config.k8s.io/v1',
                kind: 'PodSecurityConfiguration',
                defaults: { enforce: 'baseline' },
              },
            },
          ],
        },
      }),
      featureGates: {
        description: 'Feature gates of every component, by name.',
        type: 'object',
        additionalProperties: { type: 'boolean' },
        examples: [{ InPlacePodLevelResourcesVerticalScaling: true }],
      },
      apiServerArguments: componentArguments('kube-apiserver', { 'event-ttl': '24h' }),
      controllerManagerArguments: componentArguments('kube-controller-manager', {
        'terminated-pod-gc-threshold': '50',
      }),
      schedulerArguments: componentArguments('kube-scheduler', { v: '4' }),
      kubeletArguments: componentArguments('the kubelet', { 'max-pods': '200' }),
      kubeletConfiguration: {
        description:
          "Fields of upstream's KubeletConfiguration (kubelet.config.k8s.io/v1beta1), merged over Sandbar's.",
        type: 'object',
        additionalProperties: true,
        examples: [{ maxPods: 200 }],
      },
    }),
    network: section('IPv4 subnets, in private ranges and without overlap.', {
      subnet: {
        description: 'Subnet of the Docker network. Without it, a free /24 is chosen.',
        type: 'string',
        pattern: IPV4_SUBNET,
        examples: ['172.30.0.0/24'],
      },
      pods: { description: "Pods' subnet.", type: 'string', pattern: IPV4_SUBNET, default: DEFAULTS.podSubnet },
      services: {
        description: "Services' subnet.",
        type: 'string',
        pattern: IPV4_SUBNET,
        default: DEFAULTS.serviceSubnet,
      },
    }),
    ports: section('Ports on 127.0.0.1. One that is named here must be free; else the next free one is taken.', {
      api: port('API server.', DEFAULTS.ports.api),
      http: port('Ingress, HTTP.', DEFAULTS.ports.http),
      https: port('Ingress, HTTPS.', DEFAULTS.ports.https),
      objectStore: port('Object store, S3 API.', DEFAULTS.ports.objectStore),
      objectStoreConsole: port('Object store, web console.', DEFAULTS.ports.objectStoreConsole),
    }),
    ingress: section('The ingress controller.', {
      enabled: { description: 'Whether it runs.', type: 'boolean', default: true },
    }),
    gatewayApi: {
      description:
        'Whether there are the definitions of the Gateway API and the GatewayClass `sandbar`, which the ingress serves.',
      type: 'boolean',
      default: true,
    },
    networkPolicy: { description: 'Whether NetworkPolicies are enforced.', type: 'boolean', default: true },
    objectStore: section('The S3 object store.', {
      enabled: { description: 'Whether it runs.', type: 'boolean', default: true },
      region: { description: 'Region that it answers for.', type: 'string', default: DEFAULTS.region },
      buckets: {
        description: 'Buckets that exist after `up`: names, or objects with `name` and `versioning`.',
        type: 'array',
        items: {
          type: ['string', 'object'],
          pattern: BUCKET_NAME,
          additionalProperties: false,
          required: ['name'],
          properties: {
            name: { description: "Name by S3's rules.", type: 'string', pattern: BUCKET_NAME },
            versioning: { description: 'Whether versions of objects are kept.', type: 'boolean', default: false },
          },
        },
        examples: [['pictures', { name: 'reports', versioning: true }]],
      },
    }),
    metrics: {
      description: 'Whether metrics.k8s.io is served, which `kubectl top` and autoscalers ask.',
      type: 'boolean',
      default: true,
    },
    caCertificates: {
      description: 'Files with CA certificates (PEM) that the node trusts when it pulls images, relative to this file.',
      type: 'array',
      items: { type: 'string' },
      examples: [['./corp.pem']],
    },
    mirrors: {
      description: 'Registry host → URLs that are tried, in this order, before the registry itself.',
      type: 'object',
      additionalProperties: { type: 'array', items: { type: 'string' } },
      examples: [{ 'docker.io': ['https://mirror.example:5000'] }],
    },
    registry: {
      description:
        'The image registry that all clusters of the engine share; `false`: this one has none. Images are pushed to it and run under `localhost:PORT/…`.',
      type: ['object', 'boolean'],
      additionalProperties: false,
      properties: {
        name: {
          description: 'Name of its container and its volume; clusters that name another one do not share it.',
          type: 'string',
          pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
          default: DEFAULTS.registry.name,
        },
        port: port('Port on 127.0.0.1, and in the names of its images.', DEFAULTS.registry.port),
        mirrors: {
          description:
            'Registries whose images it keeps copies of as they are pulled. Where `mirrors` names a mirror of one, copies come from there.',
          type: 'array',
          items: { type: 'string' },
          examples: [['docker.io', 'registry.k8s.io']],
        },
      },
      examples: [{ mirrors: ['docker.io'] }],
    },
    manifests: {
      description:
        'Kubernetes manifests that `up` applies, in this order: files, folders or patterns, relative to this file.',
      type: 'array',
      items: { type: 'string' },
      examples: [['k8s/*.yaml']],
    },
    mounts: {
      description:
        'Folders and files of this machine that workloads have live: `[NAMESPACE/]KIND/NAME[/CONTAINER]` → list of mounts, as Compose writes them.',
      type: 'object',
      additionalProperties: {
        type: 'array',
        items: {
          type: ['string', 'object'],
          additionalProperties: false,
          required: ['type', 'target'],
          properties: {
            type: {
              description: '`bind`; `volume` without a source: the path keeps the content of the image.',
              type: 'string',
            },
            source: {
              description: 'Folder or file of this machine, relative to this file; `~` is the home folder.',
              type: 'string',
            },
            target: { description: 'Absolute path in the container.', type: 'string' },
            read_only: { description: 'Whether the container may only read.', type: 'boolean', default: false },
            exclude: {
              description:
                'Paths below the target that keep the content of the image, as an anonymous volume does. Not known to Compose.',
              type: 'array',
              items: { type: 'string' },
              examples: [['node_modules']],
            },
            bind: section('How it is bound.', {
              create_host_path: {
                description: 'Whether a source that is missing is made, as a folder.',
                type: 'boolean',
                default: true,
              },
              propagation: { description: '`rprivate` or `private`, which it always is.', type: 'string' },
              selinux: { description: '`z` or `Z`: no effect.', type: 'string' },
            }),
            consistency: { description: 'No effect: mounts are always consistent.', type: 'string' },
          },
        },
      },
      examples: [{ 'deployment/web': ['./src:/app/src:ro', '/app/src/node_modules'] }],
    },
    publish: {
      description:
        'Ports of 127.0.0.1 that lead to Services, workloads and pods: `PORT:[NAMESPACE/]KIND/NAME:PORT[/udp]`, as `sandbar port add` takes them.',
      type: 'array',
      items: { type: 'string' },
      examples: [['8080:service/web:80', '5353:dns/service/dns:53/udp']],
    },
  },
} as const satisfies JsonSchema;

/** The part of the schema that describes the value at a path, or undefined where any value may stand. */
export function findSchemaAt(path: readonly (string | number)[]): JsonSchema | undefined {
  return path.reduce<JsonSchema | undefined>((schema, part) => {
    if (schema === undefined) return undefined;
    if (typeof part === 'number') return schema.items;
    const rest = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined;
    return schema.properties?.[part] ?? rest;
  }, CONFIG_SCHEMA);
}

function section(description: string, properties: Readonly<Record<string, JsonSchema>>): JsonSchema {
  return { description, type: 'object', additionalProperties: false, properties };
}

function port(description: string, number: number): JsonSchema {
  return { description, type: 'integer', minimum: 1, maximum: 65535, default: number };
}

function componentArguments(component: string, example: unknown): JsonSchema {
  return {
    description: `Flags of ${component}, without the leading dashes.`,
    type: 'object',
    additionalProperties: { type: ['string', 'number', 'boolean'] },
    examples: [example],
  };
}
