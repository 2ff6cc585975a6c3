import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative, sep } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type Dockerode from 'dockerode';
import { SandbarError } from '../model/errors.ts';
import {
  BASE_IMAGE,
  type BuildOptions,
  type ImageBuild,
  type ImageBuilder,
  type ImagePlan,
  type ImageSource,
} from '../model/images.ts';
import { networkSettings, stageContext } from './build-context.ts';
import { BuildProgress } from './build-progress.ts';
import { engineMessage, engineStatus, translateEngineError } from './docker-engine.ts';
import { registryAuth } from './registry-auth.ts';

/** How long a registry may take to begin its answer: not long where the base can be made on this machine instead. */
const REGISTRY_PATIENCE_MS = { withBootstrap: 3_000, withoutBootstrap: 60_000 } as const;

const DETAIL_LINES = 20;

type StreamLine = {
  readonly id?: string;
  readonly status?: string;
  readonly error?: string;
  readonly aux?: unknown;
};

type Settings = {
  readonly docker: Dockerode;
  /** The folder with the sources: `images/` of this package, or an example's. */
  readonly imagesDirectory: string;
  readonly logDirectory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly homeDirectory: string;
  readonly isRoot: boolean;
};

/** Builds, pulls and pushes images through the Docker Engine API. */
export class DockerImageBuilder implements ImageBuilder {
  readonly #settings: Settings;
  readonly #docker: Dockerode;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#docker = settings.docker;
  }

  async listSources(): Promise<readonly ImageSource[]> {
    const { imagesDirectory } = this.#settings;
    const entries = await readdir(imagesDirectory, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return Promise.all(
      files.map(async (file) => {
        const [content, { mode }] = await Promise.all([readFile(file), stat(file)]);
        return {
          path: relative(imagesDirectory, file).split(sep).join('/'),
          isExecutable: (mode & 0o100) !== 0,
          digest: createHash('sha256').update(content).digest('hex'),
        };
      }),
    );
  }

  async findImage(ref: string): Promise<{ readonly id: string; readonly sizeBytes: number } | undefined> {
    try {
      const image = await this.#docker.getImage(ref).inspect();
      return { id: image.Id, sizeBytes: image.Size };
    } catch (error) {
      if (engineStatus(error) === 404) return undefined;
      throw translateEngineError(error, `look for image ${ref}`);
    }
  }

  async tag(ref: string, newRef: string): Promise<void> {
    const { repo, tag } = splitRef(newRef);
    try {
      await this.#docker.getImage(ref).tag({ repo, tag });
    } catch (error) {
      throw translateEngineError(error, `tag image ${ref} as ${newRef}`);
    }
  }

  async pull(ref: string, options: BuildOptions): Promise<void> {
    await this.#pull(ref, { ...options, patienceMs: REGISTRY_PATIENCE_MS.withoutBootstrap });
  }

  async push(ref: string, options: BuildOptions): Promise<void> {
    try {
      const authconfig = (await registryAuth(ref, this.#settings)) ?? {};
      const stream = await this.#docker.getImage(ref).push({ authconfig, ...abortable(options.signal) });
      await followTransfer(stream, options.onProgress);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new SandbarError('IMAGE_UNAVAILABLE', `image ${ref} cannot be pushed: ${reasonOf(error)}`, {
        hint: `docker login ${ref.split('/')[0] ?? ''}, and check that you may push there`,
        cause: error,
      });
    }
  }

  async provideBase(plan: ImagePlan, options: BuildOptions): Promise<void> {
    const { canBootstrap } = await import('./debian-base.ts');
    const isBootstrapPossible = await canBootstrap(this.#settings.isRoot);
    const patienceMs = REGISTRY_PATIENCE_MS[isBootstrapPossible ? 'withBootstrap' : 'withoutBootstrap'];
    options.onProgress(`asking the registry for ${BASE_IMAGE.ref}`);
    try {
      await this.#pull(BASE_IMAGE.ref, { ...options, patienceMs });
      await this.tag(BASE_IMAGE.ref, plan.ref);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (isBootstrapPossible) return this.#bootstrapBase(plan, options);
      throw new SandbarError('IMAGE_UNAVAILABLE', `no registry gives the base image ${BASE_IMAGE.ref}`, {
        hint: 'give the Docker engine access to a registry, or set SANDBAR_IMAGE_REPOSITORY to one that `sandbar image publish` filled',
        details: [reasonOf(error)],
        cause: error,
      });
    }
  }

  async build(plan: ImageBuild, options: BuildOptions): Promise<void> {
    const { logDirectory, imagesDirectory, env } = this.#settings;
    const logPath = join(logDirectory, `build-${plan.name}.log`);
    await mkdir(logDirectory, { recursive: true });
    const log = createWriteStream(logPath);
    const progress = new BuildProgress(options.onProgress, (text) => log.write(text));
    const stage = await stageContext(plan.sources, { imagesDirectory, env });
    try {
      // Loaded for a build alone: every command has a builder, and few of them build.
      const { create: createTar } = await import('tar');
      const context = createTar({ cwd: stage, portable: true, noMtime: true }, ['.']);
      const stream = await this.#docker.buildImage(
        context as unknown as NodeJS.ReadableStream,
        this.#buildOptions(plan, options.signal),
      );
      for await (const line of linesOf(stream)) {
        if (line.id === 'moby.buildkit.trace' && typeof line.aux === 'string') progress.add(line.aux);
        throwInBandError(line);
      }
      if ((await this.findImage(plan.ref)) === undefined) throw new Error('the engine ended the build early');
    } catch (error) {
      options.signal?.throwIfAborted();
      log.write(`${reasonOf(error)}\n`);
      throw progress.toError(plan, { logPath, cause: error });
    } finally {
      log.end();
      await rm(stage, { recursive: true, force: true });
    }
  }

  #buildOptions(plan: ImageBuild, signal: AbortSignal | undefined): Dockerode.ImageBuildOptions {
    const { buildArguments, needsHostNetwork } = networkSettings(this.#settings.env);
    const options = {
      // As a number: for the text '2' dockerode opens a gRPC session besides, which only serves to log in to
      // registries, and every image that these builds start from is here already.
      version: 2,
      t: plan.ref,
      dockerfile: plan.dockerfile,
      buildargs: { ...buildArguments, ...plan.buildArguments },
      labels: { 'dev.sandbar.image': plan.name },
      ...(needsHostNetwork ? { networkmode: 'host' } : {}),
      ...abortable(signal),
    };
    return options as unknown as Dockerode.ImageBuildOptions;
  }

  async #pull(ref: string, options: BuildOptions & { readonly patienceMs: number }): Promise<void> {
    const patience = new AbortController();
    const timer = setTimeout(() => {
      patience.abort(new Error(`no answer within ${String(options.patienceMs / 1000)} s`));
    }, options.patienceMs);
    const signals = options.signal === undefined ? [patience.signal] : [patience.signal, options.signal];
    try {
      const authconfig = (await registryAuth(ref, this.#settings)) ?? {};
      const stream = (await this.#docker.pull(ref, {
        authconfig,
        ...abortable(AbortSignal.any(signals)),
      })) as Readable;
      clearTimeout(timer);
      await followTransfer(stream, options.onProgress);
    } catch (error) {
      options.signal?.throwIfAborted();
      const cause: unknown = patience.signal.aborted ? patience.signal.reason : error;
      throw new SandbarError('IMAGE_UNAVAILABLE', `image ${ref} cannot be pulled: ${reasonOf(cause)}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  async #bootstrapBase(plan: ImagePlan, options: BuildOptions): Promise<void> {
    const { imagesDirectory, env } = this.#settings;
    const stage = await mkdtemp(join(tmpdir(), 'sandbar-base-'));
    try {
      const tarPath = join(stage, 'base.tar');
      const dpkgConfigPath = join(imagesDirectory, 'base', 'dpkg.cfg');
      const { bootstrapDebian } = await import('./debian-base.ts');
      await bootstrapDebian({ suite: BASE_IMAGE.suite, dpkgConfigPath, tarPath, env, ...options });
      options.onProgress('importing the base image');
      const stream = await this.#docker.importImage(tarPath, splitRef(plan.ref));
      await followTransfer(stream, options.onProgress);
    } catch (error) {
      options.signal?.throwIfAborted();
      const output = (error as { stderr?: unknown }).stderr;
      const details = typeof output === 'string' && output !== '' ? output.trimEnd().split('\n') : [];
      throw new SandbarError(
        'IMAGE_BUILD_FAILED',
        `image base cannot be bootstrapped: ${reasonOf(error).split('\n', 1).join('')}`,
        {
          hint: 'check that apt-get update works, or set SANDBAR_IMAGE_REPOSITORY to one that `sandbar image publish` filled',
          details: details.slice(-DETAIL_LINES),
          cause: error,
        },
      );
    } finally {
      await rm(stage, { recursive: true, force: true });
    }
  }
}

/** Lines of an answer of the engine, each a JSON object. */
async function* linesOf(stream: NodeJS.ReadableStream): AsyncIterable<StreamLine> {
  for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
    if (line.trim() !== '') yield JSON.parse(line) as StreamLine;
  }
}

/** A failure is one of the lines, in an answer with status 200. */
function throwInBandError(line: StreamLine): void {
  if (line.error !== undefined) throw new Error(line.error);
}

/** Waits for the end of a pull, push or import; each layer reports its progress many times a second. */
async function followTransfer(stream: NodeJS.ReadableStream, onProgress: (text: string) => void): Promise<void> {
  let shown = '';
  for await (const line of linesOf(stream)) {
    throwInBandError(line);
    if (line.status === undefined || line.status === shown) continue;
    shown = line.status;
    onProgress(shown);
  }
}

function abortable(signal: AbortSignal | undefined): { readonly abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

/** `registry:5000/team/dns:1f2e` → its repository and its tag. */
function splitRef(ref: string): { readonly repo: string; readonly tag: string } {
  const colon = ref.lastIndexOf(':');
  return { repo: ref.slice(0, colon), tag: ref.slice(colon + 1) };
}

/** The engine's own words; where it answers with a stream, the client library leaves its wrapping around them. */
function reasonOf(error: unknown): string {
  return engineMessage(error).replace(/^\(HTTP code \d+\) [\w ]+ - /, '');
}
