/** The container engine over Docker's API. Decides nothing: it says what is wanted in Docker's words. */
import { setTimeout as delay } from 'node:timers/promises';
import { readFile as readHostFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path/posix';
import { Readable } from 'node:stream';
import type Dockerode from 'dockerode';
import { SandbarError } from '../model/errors.ts';
import { LABELS } from '../model/names.ts';
import type {
  ContainerSummary,
  EngineInfo,
  ExecResult,
  ImageSummary,
  Labels,
  NetworkSummary,
  Runtime,
  VolumeSummary,
} from '../model/ports.ts';
import type { ContainerFile, ContainerSpec, ContainerState } from '../model/resources.ts';
import { createTar, readMember, readTar } from '../model/tar.ts';
import { collectOutput, readLines } from './docker-streams.ts';
import { formatContainer, grantFrom, USUAL_GRANT, type CreateOptions, type NodeGrant } from './docker-containers.ts';
import {
  connectEngine,
  engineMessage,
  engineStatus,
  isOlder,
  translateEngineError,
  type Engine,
} from './docker-engine.ts';
import type { EngineEnvironment } from './docker-endpoint.ts';
import { openLayers, type StoredImage } from './docker-layers.ts';
import {
  inspectState,
  pauseContainer,
  removeWholly,
  startContainer,
  stopContainer,
  unlessDetached,
  unlessMissing,
  unpauseContainer,
} from './docker-states.ts';

type LabelFilter = { readonly key: string; readonly value?: string };

/** `Runtime` over the Docker engine that the environment means; connects on first use. */
export class DockerRuntime implements Runtime {
  readonly #environment: EngineEnvironment;
  #engine: Promise<Engine> | undefined;
  #description: Promise<EngineDescription> | undefined;
  /** Nodes created but not started yet: an engine that cannot grant everything says so only at the start. */
  readonly #unstartedNodes = new Map<string, UnstartedNode>();

  constructor(environment: EngineEnvironment) {
    this.#environment = environment;
  }

  /** The client itself, for the building of images. */
  async client(): Promise<Dockerode> {
    return (await this.#connect()).docker;
  }

  async close(): Promise<void> {
    const engine = await this.#engine?.catch(() => undefined);
    engine?.close();
    this.#engine = undefined;
  }

  async info(): Promise<EngineInfo> {
    const { info, version } = await this.#describe();
    return {
      version: version.Version,
      apiVersion: version.ApiVersion,
      operatingSystem: info.OperatingSystem,
      architecture: info.Architecture,
      cgroupVersion: Number(info.CgroupVersion ?? '1'),
      dataRoot: info.DockerRootDir,
      storageDriver: info.Driver,
      kernelVersion: info.KernelVersion,
      cpus: info.NCPU,
      memoryBytes: info.MemTotal,
      hasContainerdImageStore: (info.DriverStatus ?? []).some(
        ([, value]) => value?.startsWith('io.containerd.') === true,
      ),
      isRootless: (info.SecurityOptions ?? []).some((option) => option.startsWith('name=rootless')),
    };
  }

  async listContainers(label: LabelFilter): Promise<readonly ContainerSummary[]> {
    return this.#ask('list containers', async ({ docker }) => {
      const containers = await docker.listContainers({ all: true, filters: labelFilter(label) });
      return Promise.all(
        containers.map(async (container) => ({
          id: container.Id,
          name: (container.Names[0] ?? container.Id).replace(/^\//, ''),
          state: container.State as ContainerState,
          status: container.Status,
          imageRef: container.Image,
          labels: container.Labels,
          // The list names the ports of running containers only.
          ports:
            container.State === 'running' ? listedPorts(container.Ports) : await configuredPorts(docker, container.Id),
          address: Object.values(container.NetworkSettings.Networks)[0]?.IPAddress ?? '',
          addresses: Object.fromEntries(
            Object.entries(container.NetworkSettings.Networks).map(([name, { IPAMConfig, IPAddress }]) => [
              name,
              (IPAMConfig as EndpointAddress | null | undefined)?.IPv4Address ?? IPAddress,
            ]),
          ),
        })),
      );
    });
  }

  async listVolumes(label: LabelFilter): Promise<readonly VolumeSummary[]> {
    return this.#ask('list volumes', async ({ docker }) => {
      const { Volumes: volumes } = (await docker.listVolumes({ filters: labelFilter(label) })) as {
        Volumes: readonly { Name: string; Labels: Labels | null }[] | null;
      };
      return (volumes ?? []).map((volume) => ({ name: volume.Name, labels: volume.Labels ?? {} }));
    });
  }

  async listNetworks(): Promise<readonly NetworkSummary[]> {
    return this.#ask('list networks', async ({ docker }) => (await docker.listNetworks()).map(summarizeNetwork));
  }

  async findImageId(imageRef: string): Promise<string | undefined> {
    return (await this.inspectImage(imageRef))?.id;
  }

  async inspectImage(imageRef: string): Promise<ImageSummary | undefined> {
    return this.#ask(`inspect image ${imageRef}`, ({ docker }) =>
      unlessMissing(async () => {
        const image = await docker.getImage(encodeReference(imageRef)).inspect();
        return {
          id: image.Id,
          tags: image.RepoTags,
          os: image.Os,
          architecture: image.Architecture,
          sizeBytes: image.Size,
          layers: (image.RootFS.Layers as readonly string[] | undefined) ?? [],
        };
      }),
    );
  }

  async saveImage(imageRef: string, { platform }: { readonly platform?: string }): Promise<Readable> {
    return this.#ask(`save image ${imageRef}`, async ({ docker, apiVersion }) => {
      // Older engines hold one platform of an image anyway, and refuse to be asked.
      const query = platform === undefined || isOlder(apiVersion, '1.48') ? {} : { platform: platformQuery(platform) };
      return (await dial(docker, {
        path: `/images/${encodeReference(imageRef)}/get?`,
        method: 'GET',
        options: query,
        isStream: true,
        statusCodes: { 200: true },
      })) as Readable;
    });
  }

  async saveLayers(
    imageRef: string,
    { layers, labels }: { readonly layers: readonly string[]; readonly labels: Labels },
  ): Promise<Readable | undefined> {
    return this.#ask(`read layers of image ${imageRef}`, async ({ docker }) => {
      const image = await docker.getImage(encodeReference(imageRef)).inspect();
      const stored = {
        id: image.Id,
        name: imageRef,
        layers: image.RootFS.Layers as readonly string[],
        graphDriver: image.GraphDriver as StoredImage['graphDriver'],
      };
      const archive = openLayers(docker, stored, { wantedLayers: layers, labels });
      return archive === undefined ? undefined : Readable.from(archive, { objectMode: false });
    });
  }

  async readImageFile(imageRef: string, path: string): Promise<Buffer> {
    return this.#ask(`read ${path} of image ${imageRef}`, async ({ docker }) => {
      const container = await docker.createContainer({
        Image: imageRef,
        Cmd: ['never started'],
        HostConfig: { NetworkMode: 'none' },
      });
      try {
        for await (const member of readTar((await container.getArchive({ path })) as Readable)) {
          if (member.kind === 'file') return await readMember(member);
        }
        throw new Error('it is not a file');
      } finally {
        await removeWholly(docker, container.id);
      }
    });
  }

  async createNetwork(network: {
    readonly name: string;
    readonly subnet: string;
    readonly gateway: string;
    readonly containerSubnet?: string;
    readonly labels: Labels;
  }): Promise<void> {
    await this.#ask(`create network ${network.name}`, async ({ docker }) => {
      const present = (await docker.listNetworks({ filters: { name: [network.name] } }))
        .map(summarizeNetwork)
        .find(({ name }) => name === network.name);
      if (present !== undefined) {
        requireOurs(`network ${network.name}`, present.labels, network.labels);
        if (present.subnets.length === 1 && present.subnets[0] === network.subnet) return;
        await docker.getNetwork(present.id).remove();
      }
      const containerRange = network.containerSubnet === undefined ? {} : { IPRange: network.containerSubnet };
      await docker.createNetwork({
        Name: network.name,
        CheckDuplicate: true,
        Driver: 'bridge',
        IPAM: {
          Driver: 'default',
          Config: [{ Subnet: network.subnet, Gateway: network.gateway, ...containerRange }],
        },
        Labels: { ...network.labels },
      });
    });
  }

  async removeNetwork(name: string): Promise<void> {
    await this.#ask(`remove network ${name}`, ({ docker }) => unlessMissing(() => docker.getNetwork(name).remove()));
  }

  async connectNetwork(networkName: string, ref: string, address: string): Promise<void> {
    await this.#ask(`attach container ${ref} to network ${networkName}`, ({ docker }) =>
      docker
        .getNetwork(networkName)
        .connect({ Container: ref, EndpointConfig: { IPAMConfig: { IPv4Address: address } } }),
    );
  }

  async disconnectNetwork(networkName: string, ref: string): Promise<void> {
    await this.#ask(`take container ${ref} off network ${networkName}`, ({ docker }) =>
      unlessDetached(() => docker.getNetwork(networkName).disconnect({ Container: ref, Force: true })),
    );
  }

  async createVolume({ name, labels }: { readonly name: string; readonly labels: Labels }): Promise<void> {
    await this.#ask(`create volume ${name}`, async ({ docker }) => {
      // The engine answers with the volume of that name, new or old.
      const volume = (await dial(docker, {
        path: '/volumes/create',
        method: 'POST',
        options: { Name: name, Labels: labels },
        statusCodes: { 200: true, 201: true },
      })) as { readonly Labels: Labels | null };
      requireOurs(`volume ${name}`, volume.Labels ?? {}, labels);
    });
  }

  async removeVolume(name: string): Promise<void> {
    await this.#ask(`remove volume ${name}`, ({ docker }) => unlessMissing(() => docker.getVolume(name).remove()));
  }

  async createContainer(container: ContainerSpec, files: readonly ContainerFile[], labels: Labels): Promise<string> {
    const grant: NodeGrant = container.privileges.level === 'node' ? await this.#nodeGrant() : { kind: 'all' };
    const id = await this.#create(container, files, labels, grant);
    if (container.privileges.level === 'node' && grant.kind === 'all') {
      const node = { container, files, labels, replacementId: undefined };
      this.#unstartedNodes.set(id, node);
      this.#unstartedNodes.set(container.name, node);
    }
    return id;
  }

  async startContainer(ref: string): Promise<void> {
    const node = this.#unstartedNodes.get(ref);
    await this.#ask(`start container ${ref}`, async ({ docker }) => {
      try {
        await startContainer(docker, this.#currentRef(ref));
      } catch (cause) {
        if (node === undefined || !/\bcaps\b|capabilit/i.test(engineMessage(cause))) throw cause;
        node.replacementId = await this.#create(node.container, node.files, node.labels, USUAL_GRANT);
        await docker.getContainer(node.replacementId).start();
      }
    });
  }

  async stopContainer(ref: string, options: { readonly timeoutS: number }): Promise<void> {
    await this.#ask(`stop container ${ref}`, ({ docker }) => stopContainer(docker, this.#currentRef(ref), options));
  }

  async restartContainer(ref: string, { timeoutS }: { readonly timeoutS: number }): Promise<void> {
    await this.#ask(`restart container ${ref}`, ({ docker }) =>
      docker.getContainer(this.#currentRef(ref)).restart({ t: timeoutS }),
    );
  }

  async pauseContainer(ref: string): Promise<void> {
    await this.#ask(`pause container ${ref}`, ({ docker }) => pauseContainer(docker, this.#currentRef(ref)));
  }

  async unpauseContainer(ref: string): Promise<void> {
    await this.#ask(`resume container ${ref}`, ({ docker }) => unpauseContainer(docker, this.#currentRef(ref)));
  }

  async removeContainer(ref: string): Promise<void> {
    await this.#ask(`remove container ${ref}`, ({ docker }) => removeWholly(docker, this.#currentRef(ref)));
  }

  async inspectState(ref: string): ReturnType<Runtime['inspectState']> {
    return this.#ask(`inspect container ${ref}`, ({ docker }) => inspectState(docker, this.#currentRef(ref)));
  }

  async describeContainer(ref: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    return this.#ask(`inspect container ${ref}`, ({ docker }) =>
      unlessMissing(async () => ({ ...(await docker.getContainer(this.#currentRef(ref)).inspect()) })),
    );
  }

  async readFile(ref: string, path: string): Promise<string | undefined> {
    return this.#ask(`read ${path} in container ${ref}`, ({ docker }) =>
      unlessMissing(async () => {
        const archive = await docker.getContainer(this.#currentRef(ref)).getArchive({ path });
        for await (const member of readTar(archive as Readable)) {
          if (member.kind === 'symlink') return this.readFile(ref, new URL(member.linkPath, `file://${path}`).pathname);
          if (member.kind === 'file') return (await readMember(member)).toString('utf8');
        }
        return undefined;
      }),
    );
  }

  async writeFile(ref: string, file: ContainerFile): Promise<void> {
    // Into the folder itself: of a container with a read-only root the engine writes to its volumes alone.
    const inFolder = { ...file, path: basename(file.path) };
    await this.#ask(`write ${file.path} in container ${ref}`, ({ docker }) =>
      docker.getContainer(this.#currentRef(ref)).putArchive(createTar([inFolder]), { path: dirname(file.path) }),
    );
  }

  async exec(
    ref: string,
    command: readonly string[],
    { stdin, signal, ...outputs }: NonNullable<Parameters<Runtime['exec']>[2]> = {},
  ): Promise<ExecResult> {
    signal?.throwIfAborted();
    return this.#ask(
      `run ${command.join(' ')} in container ${ref}`,
      async ({ docker }) => {
        const hasStdin = stdin !== undefined;
        const exec = await docker.getContainer(this.#currentRef(ref)).exec({
          Cmd: [...command],
          AttachStdin: hasStdin,
          AttachStdout: true,
          AttachStderr: true,
        });
        const stream = await exec.start({ hijack: hasStdin, stdin: hasStdin, Detach: false, Tty: false });
        const collected = await collectOutput(stream, {
          ...outputs,
          ...(stdin === undefined ? {} : { stdin: typeof stdin === 'string' ? Readable.from([stdin]) : stdin }),
          ...(signal === undefined ? {} : { signal }),
        });
        return { ...collected, exitCode: await exitCodeOf(exec) };
      },
      signal,
    );
  }

  async *logs(
    ref: string,
    options: {
      readonly tail?: number;
      readonly isFollowing?: boolean;
      readonly since?: string;
      readonly signal?: AbortSignal;
    },
  ): AsyncGenerator<string> {
    const { signal } = options;
    if (isAborted(signal)) return;
    const stream = await this.#ask(
      `read the log of container ${ref}`,
      async ({ docker }) =>
        (await dial(docker, {
          path: `/containers/${encodeURIComponent(this.#currentRef(ref))}/logs?`,
          method: 'GET',
          options: {
            stdout: true,
            stderr: true,
            follow: options.isFollowing ?? false,
            tail: options.tail ?? 'all',
            ...(options.since === undefined ? {} : { since: parseSince(options.since, Date.now()) }),
          },
          isStream: true,
          statusCodes: { 200: true },
        })) as Readable,
    );
    const stop = (): void => void stream.destroy();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      yield* readLines(stream);
    } catch (cause) {
      if (!isAborted(signal)) throw translateEngineError(cause, `read the log of container ${ref}`);
    } finally {
      signal?.removeEventListener('abort', stop);
      stream.destroy();
    }
  }

  async #create(
    container: ContainerSpec,
    files: readonly ContainerFile[],
    labels: Labels,
    grant: NodeGrant,
  ): Promise<string> {
    const { info } = await this.#describe();
    return this.#ask(`create container ${container.name}`, async ({ docker }) => {
      const { options, archives } = formatContainer({
        container,
        files,
        labels,
        grant,
        loggingDriver: info.LoggingDriver,
      });
      const created = await this.#createReplacing(docker, options, labels);
      for (const archive of archives) {
        await created.putArchive(createTar(archive.files), { path: archive.path });
      }
      return created.id;
    });
  }

  /** A container of that name that is ours is a leftover, and goes; what belongs to others stays. */
  async #createReplacing(docker: Dockerode, options: CreateOptions, labels: Labels): Promise<Dockerode.Container> {
    try {
      return await docker.createContainer(options);
    } catch (cause) {
      if (engineStatus(cause) !== 409) throw cause;
      const present = await unlessMissing(() => docker.getContainer(options.name).inspect());
      if (present !== undefined) {
        requireOurs(`container ${options.name}`, present.Config.Labels, labels);
        await removeWholly(docker, present.Id);
      }
      return docker.createContainer(options);
    }
  }

  #currentRef(ref: string): string {
    return this.#unstartedNodes.get(ref)?.replacementId ?? ref;
  }

  /** What the engine says of itself. It starts programs to find out, so it is asked once. */
  #describe(): Promise<EngineDescription> {
    this.#description ??= this.#ask('read what the engine is', async ({ docker }) => {
      const [info, version] = await Promise.all([docker.info() as Promise<DockerInfo>, docker.version()]);
      return { info, version };
    }).catch((error: unknown) => {
      this.#description = undefined;
      throw error;
    });
    return this.#description;
  }

  /** What a node can be granted: everything, unless the engine's own process is seen to lack something. */
  async #nodeGrant(): Promise<NodeGrant> {
    const { endpoint } = await this.#connect();
    const isSystemEngine = endpoint.kind === 'socket' && /^(?:\/var)?\/run\/docker\.sock$/.test(endpoint.path);
    if (this.#environment.platform !== 'linux' || !isSystemEngine) return { kind: 'all' };
    const boundingSet = await readEngineBoundingSet();
    return boundingSet === undefined ? { kind: 'all' } : grantFrom(boundingSet);
  }

  #connect(): Promise<Engine> {
    this.#engine ??= connectEngine(this.#environment).catch((cause: unknown) => {
      // Next time the engine may have been started.
      this.#engine = undefined;
      throw cause;
    });
    return this.#engine;
  }

  async #ask<T>(subject: string, work: (engine: Engine) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const engine = await this.#connect();
    try {
      return await work(engine);
    } catch (cause) {
      if (isAborted(signal)) throw signal?.reason;
      throw translateEngineError(cause, subject);
    }
  }
}

type EngineDescription = { readonly info: DockerInfo; readonly version: Dockerode.DockerVersion };

type DockerInfo = {
  readonly OperatingSystem: string;
  readonly Driver: string;
  readonly KernelVersion: string;
  readonly Architecture: string;
  readonly CgroupVersion?: string;
  readonly DockerRootDir: string;
  readonly NCPU: number;
  readonly MemTotal: number;
  readonly LoggingDriver: string;
  readonly DriverStatus: readonly (readonly string[])[] | null;
  readonly SecurityOptions: readonly string[] | null;
};

type UnstartedNode = {
  readonly container: ContainerSpec;
  readonly files: readonly ContainerFile[];
  readonly labels: Labels;
  /** Set once the node had to be created anew: those who know it by its first id mean this one. */
  replacementId: string | undefined;
};

type EndpointAddress = { readonly IPv4Address?: string };

type DialOptions = {
  readonly path: string;
  readonly method: string;
  readonly options?: object;
  readonly isStream?: boolean;
  readonly statusCodes: Readonly<Record<number, boolean>>;
};

/** For the calls that dockerode has no way to stream or to give every option. */
function dial(docker: Dockerode, options: DialOptions): Promise<unknown> {
  const modem = docker.modem as {
    dial(options: DialOptions, callback: (cause: Error | null, answer: unknown) => void): void;
  };
  return new Promise((resolve, reject) => {
    modem.dial(options, (cause, answer) => {
      if (cause === null) resolve(answer);
      else reject(cause);
    });
  });
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** Refuses to touch an object of that name that belongs to another cluster or to nobody of ours. */
function requireOurs(subject: string, present: Labels, wanted: Labels): void {
  const isSame = (label: string): boolean => present[label] !== undefined && present[label] === wanted[label];
  if (isSame(LABELS.cluster) || isSame(LABELS.registry)) return;
  throw new SandbarError('NAME_TAKEN', `a ${subject} is there already and was not made by this cluster`, {
    hint: 'remove or rename it, or choose another cluster name with --name',
  });
}

async function exitCodeOf(exec: Dockerode.Exec): Promise<number> {
  // The output ends a moment before the engine has noted the end of the process.
  for (let attempt = 0; ; attempt += 1) {
    const { Running: isRunning, ExitCode: exitCode } = await exec.inspect();
    if (!isRunning && exitCode !== null) return exitCode;
    if (attempt === 100) throw new Error('the process closed its output but does not end');
    await delay(Math.min(5 * 2 ** attempt, 100));
  }
}

function labelFilter({ key, value }: LabelFilter): { label: string[] } {
  return { label: [value === undefined ? key : `${key}=${value}`] };
}

function summarizeNetwork(network: Dockerode.NetworkInspectInfo): NetworkSummary {
  return {
    id: network.Id,
    name: network.Name,
    labels: network.Labels ?? {},
    subnets: (network.IPAM?.Config ?? []).flatMap(({ Subnet: subnet }) => (subnet === undefined ? [] : [subnet])),
  };
}

type PublishedPort = ContainerSummary['ports'][number];

function listedPorts(ports: readonly Dockerode.Port[]): readonly PublishedPort[] {
  return ports.flatMap(({ PublicPort: hostPort, PrivatePort: containerPort }) =>
    (hostPort as number | undefined) === undefined ? [] : [{ hostPort, containerPort }],
  );
}

async function configuredPorts(docker: Dockerode, id: string): Promise<readonly PublishedPort[]> {
  const container = await unlessMissing(() => docker.getContainer(id).inspect());
  const bindings = (container?.HostConfig.PortBindings ?? {}) as Record<string, readonly { HostPort: string }[] | null>;
  return Object.entries(bindings).flatMap(([port, hosts]) =>
    (hosts ?? []).map(({ HostPort: hostPort }) => ({
      hostPort: Number(hostPort),
      containerPort: Number.parseInt(port, 10),
    })),
  );
}

/** A reference inside a path: its slashes stay. */
function encodeReference(imageRef: string): string {
  return imageRef.split('/').map(encodeURIComponent).join('/');
}

/** `linux/arm64/v8` as the engine wants it. */
function platformQuery(platform: string): object {
  const [os, architecture, variant] = platform.split('/');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

/** Seconds since the epoch for a time (RFC 3339, or seconds) or a span back from now such as `90s` or `1h30m`. */
function parseSince(since: string, nowMs: number): string {
  const span = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(since);
  if (since !== '' && span !== null) {
    const [hours, minutes, seconds] = span.slice(1).map((part: string | undefined) => Number(part ?? 0));
    return String(Math.floor(nowMs / 1000) - ((hours ?? 0) * 3600 + (minutes ?? 0) * 60 + (seconds ?? 0)));
  }
  if (/^\d+(?:\.\d+)?$/.test(since)) return since;
  const time = Date.parse(since);
  if (Number.isNaN(time)) {
    throw new SandbarError('USAGE', `"${since}" is neither a time nor a span of time`, {
      hint: 'for example 10m, 1h30m or 2026-05-01T12:00:00Z',
    });
  }
  return String(time / 1000);
}

/** Which capabilities the engine of this machine may hand on, or undefined where that cannot be seen. */
async function readEngineBoundingSet(): Promise<bigint | undefined> {
  try {
    const pid = (await readHostFile('/var/run/docker.pid', 'utf8')).trim();
    const status = await readHostFile(`/proc/${pid}/status`, 'utf8');
    if (!/^Name:\s+dockerd$/m.test(status)) return undefined;
    const boundingSet = /^CapBnd:\s+([0-9a-f]+)$/m.exec(status)?.[1];
    return boundingSet === undefined ? undefined : BigInt(`0x${boundingSet}`);
  } catch {
    // No engine process to be seen, as with Docker Desktop: starting the node will tell.
    return undefined;
  }
}
