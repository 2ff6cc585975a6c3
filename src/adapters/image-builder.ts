import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type Dockerode from 'dockerode';
import { execa } from 'execa';
import { create as createTar } from 'tar';
import { SandbarError } from '../model/errors.ts';
import {
  BASE_IMAGE,
  type BuildOptions,
  type ImageBuilder,
  type ImageBuild,
  type ImagePlan,
  type ImageSource,
} from '../model/images.ts';
import { BuildProgress } from './build-progress.ts';
import { registryAuth } from './registry-auth.ts';

/** How long a registry may take to begin its answer before the base is bootstrapped instead. */
const REGISTRY_PATIENCE_MS = { withBootstrap: 3_000, withoutBootstrap: 60_000 } as const;

const LOG_TAIL_LINES = 20;

/** Environment variables that a build needs to reach the network as the host does. */
const PASSED_VARIABLES = [
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'ALL_PROXY', 'FTP_PROXY'].flatMap((name) => [name, name.toLowerCase()]),
  ...['GOPROXY', 'GOSUMDB', 'GOFLAGS'],
] as const;

/** Where the usual systems keep all CA certificates in one file. */
const SYSTEM_CA_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/cert.pem',
] as const;

type StreamLine = {
  readonly id?: string;
  readonly status?: string;
  readonly error?: string;
  readonly aux?: unknown;
};

/** Builds, pulls and pushes images through the Docker Engine API. */
export class DockerImageBuilder implements ImageBuilder {
  readonly #docker: Dockerode;
  readonly #imagesDirectory: string;
  readonly #logDirectory: string;
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #homeDirectory: string;
  readonly #isRoot: boolean;

  constructor(options: {
    readonly docker: Dockerode;
    /** The folder with the sources: `images/` of this package, or an example's. */
    readonly imagesDirectory: string;
    readonly logDirectory: string;
    readonly env: Readonly<Record<string, string | undefined>>;
    readonly homeDirectory: string;
    readonly isRoot: boolean;
  }) {
    this.#docker = options.docker;
    this.#imagesDirectory = options.imagesDirectory;
    this.#logDirectory = options.logDirectory;
    this.#env = options.env;
    this.#homeDirectory = options.homeDirectory;
    this.#isRoot = options.isRoot;
  }

  async listSources(): Promise<readonly ImageSource[]> {
    const entries = await readdir(this.#imagesDirectory, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return Promise.all(
      files.map(async (file) => {
        const [content, { mode }] = await Promise.all([readFile(file), stat(file)]);
        return {
          path: relative(this.#imagesDirectory, file).split(sep).join('/'),
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
      if (statusOf(error) === 404) return undefined;
      throw error;
    }
  }

  async tag(ref: string, newRef: string): Promise<void> {
    const { name, tag } = splitRef(newRef);
    await this.#docker.getImage(ref).tag({ repo: name, tag });
  }

  async pull(ref: string, options: BuildOptions): Promise<void> {
    await this.#pull(ref, { ...options, patienceMs: REGISTRY_PATIENCE_MS.withoutBootstrap });
  }

  async push(ref: string, options: BuildOptions): Promise<void> {
    try {
      const auth = await registryAuth(ref, { homeDirectory: this.#homeDirectory, env: this.#env });
      const stream = await this.#docker
        .getImage(ref)
        .push({ authconfig: auth ?? {}, ...(options.signal === undefined ? {} : { abortSignal: options.signal }) });
      for await (const line of linesOf(stream)) {
        throwInBandError(line);
        if (line.status !== undefined) options.onProgress(line.status);
      }
    } catch (error) {
      throw new SandbarError('IMAGE_UNAVAILABLE', `image ${ref} cannot be pushed: ${messageOf(error)}`, {
        hint: `log in with docker login ${ref.split('/')[0] ?? ''}, and check that you may push there`,
        cause: error,
      });
    }
  }

  async provideBase(plan: ImagePlan, options: BuildOptions): Promise<void> {
    const canBootstrap = this.#isRoot && (await isDebianLike());
    options.onProgress(`asking the registry for ${BASE_IMAGE.ref}`);
    try {
      const patienceMs = canBootstrap ? REGISTRY_PATIENCE_MS.withBootstrap : REGISTRY_PATIENCE_MS.withoutBootstrap;
      await this.#pull(BASE_IMAGE.ref, { ...options, patienceMs });
      await this.tag(BASE_IMAGE.ref, plan.ref);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!canBootstrap) {
        throw new SandbarError('IMAGE_UNAVAILABLE', `no registry gives the base image ${BASE_IMAGE.ref}`, {
          hint: 'give the Docker engine access to a registry, or set SANDBAR_IMAGE_REPOSITORY to one that holds the images of `sandbar image publish`',
          details: [messageOf(error)],
          cause: error,
        });
      }
      await this.#bootstrapBase(plan, options);
    }
  }

  async build(plan: ImageBuild, options: BuildOptions): Promise<void> {
    const logPath = join(this.#logDirectory, `build-${plan.name}.log`);
    await mkdir(this.#logDirectory, { recursive: true });
    const log = createWriteStream(logPath);
    const progress = new BuildProgress(options.onProgress, (text) => log.write(text));
    const stage = await this.#stageContext(plan);
    try {
      const context = createTar({ cwd: stage, portable: true, noMtime: true }, [
        '.',
      ]) as unknown as NodeJS.ReadableStream;
      const stream = await this.#docker.buildImage(context, this.#buildOptions(plan, options.signal));
      for await (const line of linesOf(stream)) {
        if (line.id === 'moby.buildkit.trace' && typeof line.aux === 'string') progress.add(line.aux);
        throwInBandError(line);
      }
      if ((await this.findImage(plan.ref)) === undefined) throw new Error('the engine ended the build early');
    } catch (error) {
      options.signal?.throwIfAborted();
      log.write(`${messageOf(error)}\n`);
      throw progress.toError(plan, { logPath, cause: error });
    } finally {
      log.end();
      await rm(stage, { recursive: true, force: true });
    }
  }

  #buildOptions(plan: ImageBuild, signal: AbortSignal | undefined): Dockerode.ImageBuildOptions {
    const passed = this.#passedVariables();
    const options = {
      // As a number: for the text '2' dockerode opens a gRPC session besides, which only serves to log in to
      // registries, and every image that these builds start from is here already.
      version: 2,
      t: plan.ref,
      dockerfile: plan.dockerfile,
      buildargs: { ...passed, ...plan.buildArguments },
      labels: { 'dev.sandbar.image': plan.name },
      rm: true,
      forcerm: true,
      // A proxy that listens on the host's loopback is out of reach from any other network.
      ...(Object.values(passed).some(isLoopbackUrl) ? { networkmode: 'host' } : {}),
      ...(signal === undefined ? {} : { abortSignal: signal }),
    };
    return options as unknown as Dockerode.ImageBuildOptions;
  }

  #passedVariables(): Record<string, string> {
    const passed: Record<string, string> = {};
    for (const name of PASSED_VARIABLES) {
      const value = this.#env[name];
      if (value !== undefined && value !== '') passed[name] = value;
    }
    return passed;
  }

  /** Copies the context to a folder of its own, with the same modes whatever the checkout's umask was. */
  async #stageContext(plan: ImageBuild): Promise<string> {
    const stage = await mkdtemp(join(tmpdir(), 'sandbar-build-'));
    for (const source of plan.sources) {
      const target = join(stage, source.path);
      await mkdir(dirname(target), { recursive: true });
      await copyFile(join(this.#imagesDirectory, source.path), target);
      await chmod(target, source.isExecutable ? 0o755 : 0o644);
    }
    await writeFile(join(stage, 'host-ca.crt'), await this.#hostCertificates());
    return stage;
  }

  /** The host's CA certificates, or nothing: then the builder's own have to do. */
  async #hostCertificates(): Promise<string> {
    const named = [this.#env['SSL_CERT_FILE'], this.#env['NODE_EXTRA_CA_CERTS']].filter((path) => path !== undefined);
    const contents = await Promise.all([...new Set(named)].map(readIfThere));
    const found = contents.filter((content) => content !== undefined);
    if (found.length > 0) return found.join('\n');
    for (const path of SYSTEM_CA_BUNDLES) {
      const content = await readIfThere(path);
      if (content !== undefined) return content;
    }
    return '';
  }

  async #pull(ref: string, options: BuildOptions & { readonly patienceMs: number }): Promise<void> {
    const patience = new AbortController();
    const timer = setTimeout(() => {
      patience.abort(new Error(`no answer within ${String(options.patienceMs / 1000)} s`));
    }, options.patienceMs);
    const signal = AbortSignal.any([patience.signal, ...(options.signal === undefined ? [] : [options.signal])]);
    try {
      const auth = await registryAuth(ref, { homeDirectory: this.#homeDirectory, env: this.#env });
      const stream = (await this.#docker.pull(ref, {
        abortSignal: signal,
        ...(auth === undefined ? {} : { authconfig: auth }),
      })) as Readable;
      for await (const line of linesOf(stream)) {
        clearTimeout(timer);
        throwInBandError(line);
        if (line.status !== undefined) options.onProgress(line.status);
      }
    } catch (error) {
      throw new SandbarError(
        'IMAGE_UNAVAILABLE',
        `image ${ref} cannot be pulled: ${messageOf(signal.reason ?? error)}`,
        {
          cause: error,
        },
      );
    } finally {
      clearTimeout(timer);
    }
  }

  /** Makes the base from Debian's packages, as `debian:trixie-slim` is made. */
  async #bootstrapBase(plan: ImagePlan, options: BuildOptions): Promise<void> {
    const stage = await mkdtemp(join(tmpdir(), 'sandbar-base-'));
    const run = { env: { ...this.#env }, extendEnv: false, ...(options.signal && { cancelSignal: options.signal }) };
    try {
      if ((await readIfThere('/usr/bin/mmdebstrap')) === undefined) {
        options.onProgress('installing mmdebstrap');
        const apt = { ...run, env: { ...run.env, DEBIAN_FRONTEND: 'noninteractive' } };
        await execa('apt-get', ['update'], apt);
        await execa(
          'apt-get',
          ['install', '--yes', '--no-install-recommends', 'mmdebstrap', 'debian-archive-keyring'],
          apt,
        );
      }
      options.onProgress(`bootstrapping Debian ${BASE_IMAGE.suite}`);
      const tarPath = join(stage, 'base.tar');
      const dpkgOptions = `--dpkgopt=${join(this.#imagesDirectory, 'base', 'dpkg.cfg')}`;
      await execa(
        'mmdebstrap',
        ['--variant=minbase', dpkgOptions, BASE_IMAGE.suite, tarPath, ...(await hostMirrors())],
        run,
      );
      options.onProgress('importing the base image');
      const { name, tag } = splitRef(plan.ref);
      const stream = (await this.#docker.importImage(tarPath, { repo: name, tag })) as Readable;
      for await (const line of linesOf(stream)) throwInBandError(line);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new SandbarError(
        'IMAGE_BUILD_FAILED',
        `base image cannot be bootstrapped: ${firstLine(messageOf(error))}`,
        {
          hint: 'check that apt-get update works on this machine, or set SANDBAR_IMAGE_REPOSITORY to a repository that holds the images',
          details: messageOf(error).split('\n').slice(-LOG_TAIL_LINES),
          cause: error,
        },
      );
    } finally {
      await rm(stage, { recursive: true, force: true });
    }
  }
}

/** Tells Debian and what derives from it; the file is on Linux only. */
async function isDebianLike(): Promise<boolean> {
  const release = await readIfThere('/etc/os-release');
  return release !== undefined && /^ID(?:_LIKE)?=.*\bdebian\b/m.test(release);
}

/** The Debian mirrors that this machine is set to use, as sources for mmdebstrap; none: mmdebstrap's own default. */
async function hostMirrors(): Promise<readonly string[]> {
  const format = '$(ORIGIN)|$(LABEL)|$(REPO_URI)';
  const targets = await execa('apt-get', ['indextargets', '--format', format, 'Identifier: Packages'], {
    reject: false,
  });
  const uriByLabel = new Map(
    targets.stdout
      .split('\n')
      .map((line) => line.split('|'))
      .filter(([origin, , uri]) => origin === 'Debian' && uri?.startsWith('http') === true)
      .map(([, label = '', uri = '']) => [label, uri]),
  );
  const main = uriByLabel.get('Debian');
  if (main === undefined) return [];
  const security = uriByLabel.get('Debian-Security');
  return [
    `deb ${main} ${BASE_IMAGE.suite} main`,
    `deb ${main} ${BASE_IMAGE.suite}-updates main`,
    ...(security === undefined ? [] : [`deb ${security} ${BASE_IMAGE.suite}-security main`]),
  ];
}

/** Lines of an answer of the engine, each a JSON object. A failure is one of them, in an answer with status 200. */
async function* linesOf(stream: NodeJS.ReadableStream): AsyncIterable<StreamLine> {
  for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
    if (line.trim() !== '') yield JSON.parse(line) as StreamLine;
  }
}

function throwInBandError(line: StreamLine): void {
  if (line.error !== undefined) throw new Error(line.error);
}

function isLoopbackUrl(value: string): boolean {
  return /^(?:https?:\/\/)?(?:[^@/]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?::|\/|,|$)/.test(value);
}

/** `registry:5000/team/dns:1f2e` → its name and its tag. */
function splitRef(ref: string): { name: string; tag: string } {
  const colon = ref.lastIndexOf(':');
  return { name: ref.slice(0, colon), tag: ref.slice(colon + 1) };
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function statusOf(error: unknown): number | undefined {
  return (error as { statusCode?: number }).statusCode;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'stderr' in error && typeof error.stderr === 'string' && error.stderr !== '' ? error.stderr : error.message;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? '';
}
