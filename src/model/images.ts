/** The images that Sandbar builds, and their names: each is named by the hash of what it is made from. */
import { hashOf } from './hash.ts';
import { DEFAULT_KUBERNETES, type KubernetesMinor } from './versions.ts';

/** Images that are run or copied from; `base` and `builder` only serve to build these. */
export const RUNTIME_IMAGES = [
  'control-plane',
  'agent',
  'dns',
  'ingress',
  'object-store',
  'metrics',
  'ports',
  'mount',
  'registry',
  'kubectl',
] as const;
export type RuntimeImageName = (typeof RUNTIME_IMAGES)[number];
export type ImageName = RuntimeImageName | 'base' | 'builder';

/** The ordinary base; a bootstrapped one holds the same packages. */
export const BASE_IMAGE = { ref: 'debian:trixie-slim', suite: 'trixie' } as const;

/** A system and architecture as Go names them, e.g. `darwin`, `arm64`. */
export type Target = { readonly os: string; readonly architecture: string };

/** A file below `images/`. */
export type ImageSource = { readonly path: string; readonly isExecutable: boolean; readonly digest: string };

/** What is built, and from what. */
export type ImageBuild = {
  readonly name: string;
  /** Repository and hash: `sandbar/dns:1f2e…`. */
  readonly ref: string;
  /** Files below the builder's folder that are the build context and, with `buildArguments`, the hash. */
  readonly sources: readonly ImageSource[];
  readonly dockerfile: string;
  readonly buildArguments: Readonly<Record<string, string>>;
};

export type ImagePlan = ImageBuild & { readonly name: ImageName; readonly dependsOn: readonly ImageName[] };

export type ImagePlans = ReadonlyMap<ImageName, ImagePlan>;

export type BuildOptions = {
  /** What happens just now, in one line. */
  readonly onProgress: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
};

/** Where images come from and go to. Failures are SandbarErrors; an aborted signal rejects with its reason. */
export type ImageBuilder = {
  /** Every file below the builder's folder. */
  listSources(): Promise<readonly ImageSource[]>;
  findImage(ref: string): Promise<{ readonly id: string; readonly sizeBytes: number } | undefined>;
  tag(ref: string, newRef: string): Promise<void>;
  pull(ref: string, options: BuildOptions): Promise<void>;
  push(ref: string, options: BuildOptions): Promise<void>;
  /** Gives the base its name: an ordinary image from a registry, or one made from packages where none answers. */
  provideBase(plan: ImagePlan, options: BuildOptions): Promise<void>;
  build(build: ImageBuild, options: BuildOptions): Promise<void>;
};

type ImageDefinition = {
  readonly name: ImageName;
  readonly folders: readonly string[];
  /** Build argument → image that it names. */
  readonly from: Readonly<Record<string, ImageName>>;
};

/** In building order. */
const DEFINITIONS: readonly ImageDefinition[] = [
  { name: 'base', folders: ['base'], from: {} },
  { name: 'builder', folders: ['builder'], from: { BASE: 'base' } },
  {
    name: 'control-plane',
    folders: ['control-plane', 'gateway-api', 'kubernetes', 'lib'],
    from: { BUILDER: 'builder' },
  },
  {
    name: 'agent',
    folders: ['agent', 'containerd', 'kubernetes', 'lib'],
    from: { BASE: 'base', BUILDER: 'builder' },
  },
  { name: 'dns', folders: ['dns', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'ingress', folders: ['ingress', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'object-store', folders: ['object-store', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'metrics', folders: ['metrics', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'ports', folders: ['ports', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'mount', folders: ['mount', 'lib'], from: { BUILDER: 'builder' } },
  { name: 'registry', folders: ['registry'], from: { BUILDER: 'builder' } },
  { name: 'kubectl', folders: ['kubectl', 'kubernetes', 'lib'], from: { BUILDER: 'builder' } },
];

/** Names every image for an engine's architecture and, for kubectl, the host that it is to run on. */
export function planImages(
  sources: readonly ImageSource[],
  platform: {
    readonly engineArchitecture: string;
    readonly kubectlTarget: Target;
    /** The default where it plays no part. */
    readonly kubernetes?: KubernetesMinor | undefined;
  },
): ImagePlans {
  const plans = new Map<ImageName, ImagePlan>();
  for (const definition of DEFINITIONS) {
    const kubernetes = platform.kubernetes ?? DEFAULT_KUBERNETES;
    plans.set(definition.name, planImage(definition, { sources, plans, ...platform, kubernetes }));
  }
  return plans;
}

/** Images of the apps below `docs/examples/`: built as ours are, kept apart by their repository. */
export function planExampleImage(
  sources: readonly ImageSource[],
  options: { readonly name: string; readonly baseRef: string },
): ImageBuild {
  // What lies in a checkout besides, such as node_modules, is no part of it.
  const own = sources
    .filter(({ path }) => /^(?:Dockerfile|package(?:-lock)?\.json|src\/.*)$/.test(path))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  const buildArguments = { BASE: options.baseRef };
  return {
    name: options.name,
    ref: `sandbar-example/${options.name}:${hashOf({ sources: own, buildArguments })}`,
    sources: own,
    dockerfile: 'Dockerfile',
    buildArguments,
  };
}

/** `x86_64` and `x64` are `amd64`, `aarch64` is `arm64`: one name for what engines, Node and Go name differently. */
export function goArchitecture(architecture: string): string {
  const names: Readonly<Record<string, string>> = { x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64' };
  return names[architecture] ?? architecture;
}

/** Go's name for Node's platform. */
export function goSystem(platform: NodeJS.Platform): string {
  return platform === 'win32' ? 'windows' : platform;
}

/** Where an image lies in a repository that a team shares: `registry.example/team/sandbar/dns:1f2e…`. */
export function publishedRef(repository: string, plan: ImagePlan): string {
  return `${repository.replace(/\/+$/, '')}/${plan.ref.slice('sandbar/'.length)}`;
}

export function getPlan(plans: ImagePlans, name: ImageName): ImagePlan {
  const plan = plans.get(name);
  if (plan === undefined) throw new Error(`no plan for image ${name}`);
  return plan;
}

function planImage(
  definition: ImageDefinition,
  context: {
    readonly sources: readonly ImageSource[];
    readonly plans: ImagePlans;
    readonly engineArchitecture: string;
    readonly kubectlTarget: Target;
    readonly kubernetes: KubernetesMinor;
  },
): ImagePlan {
  const sources = context.sources
    .filter((source) => definition.folders.some((folder) => source.path.startsWith(`${folder}/`)))
    .filter(({ path }) => isBuilt(path) && !isOfOther(path, context.kubernetes))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  const buildArguments: Record<string, string> = {};
  for (const [argument, name] of Object.entries(definition.from)) {
    buildArguments[argument] = getPlan(context.plans, name).ref;
  }
  if (definition.name === 'kubectl') {
    buildArguments['TARGET_OS'] = context.kubectlTarget.os;
    buildArguments['TARGET_ARCH'] = context.kubectlTarget.architecture;
  }
  if (definition.folders.includes('kubernetes') && context.kubernetes !== DEFAULT_KUBERNETES) {
    buildArguments['KUBERNETES'] = context.kubernetes;
  }
  const hash = hashOf({
    sources,
    buildArguments,
    // A kubectl is the same file whichever engine compiles it, but an image has an architecture.
    architecture: context.engineArchitecture,
    base: definition.name === 'base' ? BASE_IMAGE : undefined,
  });
  return {
    name: definition.name,
    ref: `${repositoryOf(definition.name)}:${hash}`,
    sources,
    dockerfile: `${definition.name}/Dockerfile`,
    buildArguments,
    dependsOn: Object.values(definition.from),
  };
}

/**
 * Some engines ask a registry for what a Dockerfile starts from, even if it is here, and `sandbar/base` would be anybody's
 * on Docker Hub. `localhost` is a registry that nobody else can fill.
 */
function repositoryOf(name: ImageName): string {
  return name === 'base' || name === 'builder' ? `localhost/sandbar/${name}` : `sandbar/${name}`;
}

/** Modules of the versions that are not the default; see images/README.md. */
const VERSIONS_FOLDER = 'kubernetes/versions/';

function isOfOther(path: string, kubernetes: KubernetesMinor): boolean {
  return path.startsWith(VERSIONS_FOLDER) && !path.startsWith(`${VERSIONS_FOLDER}${kubernetes}/`);
}

/** Tests and texts are no part of a program, so changing them makes no new image. */
function isBuilt(path: string): boolean {
  return !path.endsWith('_test.go') && !path.endsWith('.md');
}
