import type { Emit } from '../model/events.ts';
import {
  getPlan,
  goArchitecture,
  goSystem,
  planExampleImage,
  planImages,
  publishedRef,
  RUNTIME_IMAGES,
  type ImageBuilder,
  type ImageName,
  type ImagePlan,
  type ImagePlans,
  type RuntimeImageName,
  type Target,
} from '../model/images.ts';
import { LABELS } from '../model/names.ts';
import type { KubernetesMinor } from '../model/versions.ts';
import type { Clock, Host, Runtime } from '../model/ports.ts';

export type ImagePorts = {
  readonly images: ImageBuilder;
  readonly runtime: Runtime;
  readonly host: Host;
  readonly clock: Clock;
};

export type ListedImage = {
  readonly name: RuntimeImageName;
  readonly ref: string;
  readonly isPresent: boolean;
  /** Zero while it is missing. */
  readonly sizeBytes: number;
  /** Names of the containers that run it. */
  readonly usedBy: readonly string[];
};

type ResolveOptions<Name extends ImageName = RuntimeImageName> = {
  readonly names: readonly Name[];
  /** The default where it plays no part. */
  readonly kubernetes?: KubernetesMinor | undefined;
  /** A repository to pull missing images from, as `registry.example/team/sandbar`. */
  readonly repository?: string | undefined;
  readonly signal?: AbortSignal | undefined;
};

/** Makes the images present: already here, or pulled from the repository when one is set, or built. Returns their references. */
export async function resolveImages<Name extends ImageName>(
  ports: ImagePorts,
  emit: Emit,
  options: ResolveOptions<Name>,
): Promise<ReadonlyMap<Name, string>> {
  const plans = await currentPlans(ports, options.kubernetes);
  const refs = new Map(options.names.map((name) => [name, getPlan(plans, name).ref]));
  const found = await Promise.all([...refs.values()].map((ref) => ports.images.findImage(ref)));
  if (!found.includes(undefined)) return refs;
  const resolution = new Resolution(ports, emit, { ...options, plans });
  const onWait = (holder: string): void => {
    emit({ type: 'notice', text: `waiting for another sandbar (${holder}) that makes images` });
  };
  const { signal } = options;
  await ports.host.withLock('images', signal === undefined ? { onWait } : { onWait, signal }, async () => {
    for (const name of options.names) await resolution.resolve(name);
  });
  return refs;
}

/** What `resolveImages` would return; a notice names each image that it would have to make present first. */
export async function foreseeImages(
  ports: ImagePorts,
  emit: Emit,
  options: Pick<ResolveOptions, 'names' | 'kubernetes' | 'repository'>,
): Promise<ReadonlyMap<RuntimeImageName, string>> {
  const plans = await currentPlans(ports, options.kubernetes);
  const refs = new Map(options.names.map((name) => [name, getPlan(plans, name).ref]));
  await Promise.all(
    [...refs].map(async ([name, ref]) => {
      if ((await ports.images.findImage(ref)) !== undefined) return;
      const deed = options.repository === undefined ? 'built' : `pulled from ${options.repository}, or built`;
      emit({ type: 'notice', text: `image ${name} is missing: it would be ${deed} first` });
    }),
  );
  return refs;
}

/** `image build`: builds what is missing; the repository is not asked. */
export async function buildImages(
  ports: ImagePorts,
  emit: Emit,
  { names = RUNTIME_IMAGES, ...options }: Partial<Pick<ResolveOptions, 'names' | 'kubernetes' | 'signal'>>,
): Promise<ReadonlyMap<RuntimeImageName, string>> {
  return resolveImages(ports, emit, { names, ...options });
}

/**
 * Makes an example app's image present, named by the hash of its sources and `:latest` as its manifests have it.
 * `folder` is a builder on the app's own folder. Returns the name with `:latest`.
 */
export async function buildExampleImage(
  ports: ImagePorts,
  emit: Emit,
  example: { readonly name: string; readonly folder: ImageBuilder; readonly signal?: AbortSignal | undefined },
): Promise<string> {
  const { name, folder, signal } = example;
  const resolution = new Resolution(ports, emit, { plans: await currentPlans(ports), signal });
  const baseRef = await resolution.resolve('base');
  const build = planExampleImage(await folder.listSources(), { name, baseRef });
  if ((await folder.findImage(build.ref)) === undefined) {
    const texts = { phase: `image ${name}`, doing: 'building', done: `built ${build.ref}` };
    await inPhase(ports.clock, emit, texts, (onProgress) => folder.build(build, { onProgress, signal }));
  }
  const stableRef = `${build.ref.slice(0, build.ref.lastIndexOf(':'))}:latest`;
  await folder.tag(build.ref, stableRef);
  return stableRef;
}

/** `image ls` */
export async function listImages(ports: ImagePorts, kubernetes?: KubernetesMinor): Promise<readonly ListedImage[]> {
  const [plans, containers] = await Promise.all([
    currentPlans(ports, kubernetes),
    ports.runtime.listContainers({ key: LABELS.cluster }),
  ]);
  return Promise.all(
    RUNTIME_IMAGES.map(async (name) => {
      const { ref } = getPlan(plans, name);
      const image = await ports.images.findImage(ref);
      const usedBy = containers.filter((container) => container.imageRef === ref).map((container) => container.name);
      return { name, ref, isPresent: image !== undefined, sizeBytes: image?.sizeBytes ?? 0, usedBy };
    }),
  );
}

/** `image publish REPOSITORY`: builds what is missing, then pushes every image, so that others pull instead of building. */
export async function publishImages(
  ports: ImagePorts,
  emit: Emit,
  options: { readonly repository: string } & Pick<ResolveOptions, 'kubernetes' | 'signal'>,
): Promise<readonly string[]> {
  const { kubernetes, signal } = options;
  const plans = await currentPlans(ports, kubernetes);
  await buildImages(ports, emit, { kubernetes, signal });
  const published: string[] = [];
  for (const name of RUNTIME_IMAGES) {
    const plan = getPlan(plans, name);
    const ref = publishedRef(options.repository, plan);
    await inPhase(
      ports.clock,
      emit,
      { phase: `image ${name}`, doing: 'pushing', done: `pushed ${ref}` },
      (onProgress) => ports.images.tag(plan.ref, ref).then(() => ports.images.push(ref, { onProgress, signal })),
    );
    published.push(ref);
  }
  return published;
}

/** One run of resolving: an image that several others are built from is provided once. */
class Resolution {
  readonly #ports: ImagePorts;
  readonly #emit: Emit;
  readonly #plans: ImagePlans;
  readonly #repository: string | undefined;
  readonly #signal: AbortSignal | undefined;

  constructor(
    ports: ImagePorts,
    emit: Emit,
    options: {
      readonly plans: ImagePlans;
      readonly repository?: string | undefined;
      readonly signal?: AbortSignal | undefined;
    },
  ) {
    this.#ports = ports;
    this.#emit = emit;
    this.#plans = options.plans;
    this.#repository = options.repository;
    this.#signal = options.signal;
  }

  async resolve(name: ImageName): Promise<string> {
    const plan = getPlan(this.#plans, name);
    this.#signal?.throwIfAborted();
    if ((await this.#ports.images.findImage(plan.ref)) !== undefined) return plan.ref;
    if (!(await this.#pull(plan))) await this.#build(plan);
    return plan.ref;
  }

  /** False when there is no repository or it does not have the image: then it is built. */
  async #pull(plan: ImagePlan): Promise<boolean> {
    if (this.#repository === undefined || plan.name === 'base' || plan.name === 'builder') return false;
    const ref = publishedRef(this.#repository, plan);
    const texts = { phase: `image ${plan.name}`, doing: `pulling ${ref}`, done: `pulled ${ref}` };
    try {
      await inPhase(this.#ports.clock, this.#emit, texts, async (onProgress) => {
        await this.#ports.images.pull(ref, { onProgress, signal: this.#signal });
        await this.#ports.images.tag(ref, plan.ref);
      });
      return true;
    } catch (error) {
      this.#signal?.throwIfAborted();
      this.#emit({
        type: 'warning',
        text: error instanceof Error ? error.message : String(error),
        hint: 'it is built instead',
      });
      return false;
    }
  }

  async #build(plan: ImagePlan): Promise<void> {
    for (const dependency of plan.dependsOn) await this.resolve(dependency);
    this.#signal?.throwIfAborted();
    const texts = { phase: `image ${plan.name}`, doing: 'building', done: `built ${plan.ref}` };
    await inPhase(this.#ports.clock, this.#emit, texts, (onProgress) => {
      const options = { onProgress, signal: this.#signal };
      return plan.name === 'base'
        ? this.#ports.images.provideBase(plan, options)
        : this.#ports.images.build(plan, options);
    });
  }
}

async function currentPlans(ports: ImagePorts, kubernetes?: KubernetesMinor): Promise<ImagePlans> {
  const [sources, engine] = await Promise.all([ports.images.listSources(), ports.runtime.info()]);
  return planImages(sources, {
    engineArchitecture: goArchitecture(engine.architecture),
    kubectlTarget: hostTarget(ports.host),
    kubernetes,
  });
}

function hostTarget(host: Host): Target {
  return { os: goSystem(host.platform), architecture: goArchitecture(host.architecture) };
}

async function inPhase(
  clock: Clock,
  emit: Emit,
  texts: { readonly phase: string; readonly doing: string; readonly done: string },
  work: (onProgress: (text: string) => void) => Promise<void>,
): Promise<void> {
  const started = clock.now();
  const { phase } = texts;
  emit({ type: 'phase-started', phase, text: texts.doing });
  try {
    await work((text) => {
      emit({ type: 'phase-progress', phase, text });
    });
    emit({ type: 'phase-finished', phase, text: texts.done, ms: clock.now() - started });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: clock.now() - started });
    throw error;
  }
}
