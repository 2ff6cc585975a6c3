/** A container engine in memory: names, labels, files, ports and logs behave as Docker's do, as the contract shows. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { SandbarError } from '../../src/model/errors.ts';
import { blobPath, formatManifest } from '../../src/model/image-archive.ts';
import { LABELS } from '../../src/model/names.ts';
import type {
  ContainerSummary,
  EngineInfo,
  ExecResult,
  ImageSummary,
  Labels,
  NetworkSummary,
  Runtime,
  VolumeSummary,
} from '../../src/model/ports.ts';
import type { ContainerFile, ContainerRun, ContainerSpec, ContainerState } from '../../src/model/resources.ts';
import { createTar } from '../../src/model/tar.ts';

/** An image: what its process prints at the start, and the programs that can be run in it. */
export type FakeImage = {
  readonly output?: readonly string[];
  readonly layers?: readonly string[];
  readonly files?: Readonly<Record<string, string>>;
};

/** A program by its name, `cat` and `sh` among them; what it returns is its result. */
export type FakeProgram = (call: {
  readonly container: FakeContainer;
  readonly args: readonly string[];
  readonly stdin: string;
  /** Writes to standard output while the program runs, before what it returns. */
  readonly print: (text: string) => void;
}) => Promise<Partial<ExecResult>> | Partial<ExecResult>;

export type FakeContainer = {
  readonly id: string;
  readonly spec: ContainerSpec;
  readonly labels: Labels;
  readonly files: Map<string, ContainerFile>;
  readonly log: string[];
  /** Networks besides its own → address. */
  readonly attachments: Map<string, string>;
  state: ContainerState;
  exitCode: number;
  startedMs: number | undefined;
};

type FakeVolume = VolumeSummary & { readonly files: Map<string, ContainerFile> };

export class FakeRuntime implements Runtime {
  readonly containers = new Map<string, FakeContainer>();
  readonly volumes = new Map<string, FakeVolume>();
  readonly networks = new Map<string, NetworkSummary>();
  readonly images = new Map<string, FakeImage>();
  /** Ports that other processes of the host listen on. */
  readonly foreignPorts = new Set<number>();
  /** Folders of the host that are not there; every other one is. */
  readonly missingFolders = new Set<string>(['/none/sandbar/of this']);
  readonly programs = new Map<string, FakeProgram>(Object.entries(PROGRAMS));
  /** What was changed, in order: `start sandbar-dev-dns`. */
  readonly calls: string[] = [];
  engine: EngineInfo = ENGINE;
  /** Variables of every container, `NAME=value`. */
  environment: readonly string[] = [];
  /** What its containers' starts are dated by. */
  now: () => number = Date.now;
  #created = 0;

  info(): Promise<EngineInfo> {
    return Promise.resolve(this.engine);
  }

  listContainers(label: LabelFilter): Promise<readonly ContainerSummary[]> {
    return Promise.resolve([...this.containers.values()].filter(({ labels }) => matches(labels, label)).map(summarize));
  }

  listVolumes(label: LabelFilter): Promise<readonly VolumeSummary[]> {
    const found = [...this.volumes.values()].filter(({ labels }) => matches(labels, label));
    return Promise.resolve(found.map(({ name, labels }) => ({ name, labels })));
  }

  listNetworks(): Promise<readonly NetworkSummary[]> {
    return Promise.resolve([...this.networks.values()]);
  }

  async findImageId(imageRef: string): Promise<string | undefined> {
    return (await this.inspectImage(imageRef))?.id;
  }

  inspectImage(imageRef: string): Promise<ImageSummary | undefined> {
    const image = this.images.get(imageRef);
    if (image === undefined) return Promise.resolve(undefined);
    return Promise.resolve({
      id: configDigest(image),
      tags: [imageRef],
      os: 'linux',
      architecture: 'amd64',
      sizeBytes: 1000,
      layers: image.layers ?? [],
    });
  }

  async saveImage(imageRef: string): Promise<Readable> {
    return this.#archive(imageRef, this.#image(imageRef).layers ?? []);
  }

  async saveLayers(
    imageRef: string,
    { layers }: { readonly layers: readonly string[] },
  ): Promise<Readable | undefined> {
    return this.#archive(imageRef, layers);
  }

  readImageFile(imageRef: string, path: string): Promise<Buffer> {
    const content = this.#image(imageRef).files?.[path];
    if (content === undefined) return Promise.reject(missing(`${path} in image ${imageRef}`));
    return Promise.resolve(Buffer.from(content));
  }

  async createNetwork({ name, subnet, labels }: NetworkRequest): Promise<void> {
    const present = this.networks.get(name);
    if (present !== undefined) requireOurs(`network ${name}`, present.labels, labels);
    const other = [...this.networks.values()].find(
      (network) => network.name !== name && network.subnets.includes(subnet),
    );
    if (other !== undefined) throw new SandbarError('SUBNET_IN_USE', `${subnet} is used by network ${other.name}`);
    this.networks.set(name, { id: this.#nextId(), name, labels, subnets: [subnet] });
    this.calls.push(`create network ${name}`);
    await Promise.resolve();
  }

  async removeNetwork(name: string): Promise<void> {
    const users = [...this.containers.values()].filter(
      ({ spec, attachments, state }) => (spec.networkName === name || attachments.has(name)) && isUp(state),
    );
    if (users.length > 0) throw new SandbarError('DOCKER_FAILED', `network ${name} has active endpoints`);
    if (this.networks.delete(name)) this.calls.push(`remove network ${name}`);
    await Promise.resolve();
  }

  async connectNetwork(networkName: string, ref: string, address: string): Promise<void> {
    const container = this.#container(ref);
    if (!this.networks.has(networkName)) throw missing(`network ${networkName}`);
    if (container.attachments.has(networkName)) throw new SandbarError('DOCKER_FAILED', `${ref} is attached already`);
    container.attachments.set(networkName, address);
    this.calls.push(`attach ${container.spec.name} to ${networkName}`);
    await Promise.resolve();
  }

  async disconnectNetwork(networkName: string, ref: string): Promise<void> {
    const container = this.#findContainer(ref);
    if (container?.attachments.delete(networkName) === true) {
      this.calls.push(`detach ${container.spec.name} from ${networkName}`);
    }
    await Promise.resolve();
  }

  async createVolume({ name, labels }: { readonly name: string; readonly labels: Labels }): Promise<void> {
    const present = this.volumes.get(name);
    if (present !== undefined) {
      requireOurs(`volume ${name}`, present.labels, labels);
      return;
    }
    this.volumes.set(name, { name, labels, files: new Map() });
    this.calls.push(`create volume ${name}`);
    await Promise.resolve();
  }

  async removeVolume(name: string): Promise<void> {
    const users = [...this.containers.values()].filter(({ spec }) =>
      spec.volumes.some(({ volumeName }) => volumeName === name),
    );
    if (users.length > 0) throw new SandbarError('CONFLICT', `volume ${name} is in use`);
    if (this.volumes.delete(name)) this.calls.push(`remove volume ${name}`);
    await Promise.resolve();
  }

  async createContainer(spec: ContainerSpec, files: readonly ContainerFile[], labels: Labels): Promise<string> {
    this.#image(spec.imageRef);
    const present = this.containers.get(spec.name);
    if (present !== undefined) requireOurs(`container ${spec.name}`, present.labels, labels);
    this.#requireFolders(spec);
    const container: FakeContainer = {
      id: this.#nextId(),
      spec,
      labels,
      files: new Map(),
      log: [],
      attachments: new Map(),
      state: 'created',
      exitCode: 0,
      startedMs: undefined,
    };
    this.containers.set(spec.name, container);
    for (const file of files) this.#put(container, file);
    this.calls.push(`create container ${spec.name}`);
    await Promise.resolve();
    return container.id;
  }

  async startContainer(ref: string): Promise<void> {
    const container = this.#container(ref);
    if (container.state === 'running') return;
    if (container.state === 'paused') throw new SandbarError('CONFLICT', `cannot start ${ref}: it is paused`);
    const { ports, networkName } = container.spec;
    const needed = [networkName, ...container.attachments.keys()].filter((name) => !ENGINE_NETWORKS.includes(name));
    const gone = needed.find((name) => !this.networks.has(name));
    if (gone !== undefined) throw missing(`network ${gone}`);
    this.#requireFolders(container.spec);
    const taken = ports.find(({ hostPort }) => this.foreignPorts.has(hostPort) || this.#isPublished(hostPort));
    if (taken !== undefined) throw new SandbarError('PORT_IN_USE', `port ${String(taken.hostPort)} is in use`);
    container.state = 'running';
    container.startedMs = this.now();
    container.log.push(...(this.#image(container.spec.imageRef).output ?? []));
    this.calls.push(`start ${container.spec.name}`);
    await Promise.resolve();
  }

  async stopContainer(ref: string): Promise<void> {
    const container = this.#findContainer(ref);
    if (container === undefined || !isUp(container.state)) return;
    container.state = 'exited';
    container.exitCode = 137;
    this.calls.push(`stop ${container.spec.name}`);
    await Promise.resolve();
  }

  async restartContainer(ref: string): Promise<void> {
    this.#container(ref);
    await this.stopContainer(ref);
    await this.startContainer(ref);
  }

  async pauseContainer(ref: string): Promise<void> {
    const container = this.#container(ref);
    if (!isUp(container.state)) throw new SandbarError('CLUSTER_NOT_RUNNING', `container ${ref} is not running`);
    if (container.state === 'running') this.calls.push(`pause ${container.spec.name}`);
    container.state = 'paused';
    await Promise.resolve();
  }

  async unpauseContainer(ref: string): Promise<void> {
    const container = this.#container(ref);
    if (container.state !== 'paused') return;
    container.state = 'running';
    this.calls.push(`resume ${container.spec.name}`);
    await Promise.resolve();
  }

  async removeContainer(ref: string): Promise<void> {
    const container = this.#findContainer(ref);
    if (container === undefined) return;
    this.containers.delete(container.spec.name);
    this.calls.push(`remove container ${container.spec.name}`);
    await Promise.resolve();
  }

  inspectState(ref: string): Promise<ContainerRun | undefined> {
    const container = this.#findContainer(ref);
    if (container === undefined) return Promise.resolve(undefined);
    const { state, exitCode, startedMs } = container;
    return Promise.resolve({ state, exitCode, error: '', startedMs });
  }

  describeContainer(ref: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    const container = this.#findContainer(ref);
    if (container === undefined) return Promise.resolve(undefined);
    const { id, spec, state, labels } = container;
    const Config = { Image: spec.imageRef, Labels: labels, Env: [...this.environment] };
    return Promise.resolve({ Id: id, Name: `/${spec.name}`, State: { Status: state }, Config });
  }

  readFile(ref: string, path: string): Promise<string | undefined> {
    const container = this.#findContainer(ref);
    if (container === undefined) return Promise.resolve(undefined);
    const { files, key } = this.place(container, path);
    return Promise.resolve(files.get(key)?.content);
  }

  async writeFile(ref: string, file: ContainerFile): Promise<void> {
    const container = this.#container(ref);
    if (this.place(container, file.path).files === container.files && container.spec.hasReadOnlyRoot) {
      throw new SandbarError('DOCKER_FAILED', `could not write ${file.path}: the root of ${ref} is read-only`);
    }
    this.#put(container, file);
    this.calls.push(`write ${file.path} in ${container.spec.name}`);
    await Promise.resolve();
  }

  async exec(
    ref: string,
    command: readonly string[],
    { stdin = '', signal, onOutput, output }: NonNullable<Parameters<Runtime['exec']>[2]> = {},
  ): Promise<ExecResult> {
    signal?.throwIfAborted();
    const container = this.#container(ref);
    if (container.state !== 'running') throw new SandbarError('CLUSTER_NOT_RUNNING', `container ${ref} is not running`);
    // A program of many names comes with the one that it is called by.
    const [name = '', ...args] = command[0]?.endsWith('/busybox') === true ? command.slice(1) : command;
    const program = this.programs.get(name);
    if (program === undefined) return { exitCode: 126, stdout: `${name}: executable file not found`, stderr: '' };
    const input = typeof stdin === 'string' ? stdin : await text(stdin);
    let printed = '';
    const print = (text: string): void => {
      output?.write(text);
      if (output === undefined) printed += text;
      onOutput?.(text);
    };
    const running = Promise.resolve(program({ container, args, stdin: input, print }));
    const over = new AbortController();
    const result = await Promise.race([running, ...(signal === undefined ? [] : [rejectionOf(signal, over.signal)])]);
    over.abort();
    if (result.stdout !== undefined) print(result.stdout);
    return { exitCode: 0, stderr: '', ...result, stdout: printed };
  }

  async *logs(
    ref: string,
    {
      tail,
      isFollowing,
      signal,
    }: { readonly tail?: number; readonly isFollowing?: boolean; readonly signal?: AbortSignal },
  ): AsyncGenerator<string> {
    const { log } = this.#container(ref);
    yield* tail === undefined ? log : log.slice(-tail);
    if (isFollowing === true && signal !== undefined) await rejectionOf(signal).catch(() => undefined);
  }

  #archive(imageRef: string, layers: readonly string[]): Promise<Readable> {
    const image = this.#image(imageRef);
    const config = blobPath(configDigest(image));
    const manifest = { config, names: [imageRef], layers: (image.layers ?? []).map(blobPath) };
    const files = [
      { path: config, mode: 0o644, content: '{}' },
      ...layers.map((layer) => ({ path: blobPath(layer), mode: 0o644, content: `content of ${layer}` })),
      { path: 'manifest.json', mode: 0o644, content: formatManifest([manifest]) },
    ];
    return Promise.resolve(Readable.from([createTar(files)], { objectMode: false }));
  }

  #requireFolders({ binds }: ContainerSpec): void {
    const gone = binds.find(({ source }) => this.missingFolders.has(source));
    if (gone !== undefined) throw new SandbarError('NOT_FOUND', `the engine finds no ${gone.source} to mount`);
  }

  #image(imageRef: string): FakeImage {
    const image = this.images.get(imageRef);
    if (image === undefined) throw new SandbarError('IMAGE_UNAVAILABLE', `no such image: ${imageRef}`);
    return image;
  }

  #container(ref: string): FakeContainer {
    const container = this.#findContainer(ref);
    if (container === undefined) throw missing(`container ${ref}`);
    return container;
  }

  #findContainer(ref: string): FakeContainer | undefined {
    return this.containers.get(ref) ?? [...this.containers.values()].find(({ id }) => id === ref);
  }

  /** Where a path of a container leads: into a volume, by the path within that, or into the container's own files. */
  place(container: FakeContainer, path: string): { readonly files: Map<string, ContainerFile>; readonly key: string } {
    const mounted = container.spec.volumes.find((volume) => `${path}/`.startsWith(`${volume.path}/`));
    const files = mounted && this.volumes.get(mounted.volumeName)?.files;
    return files === undefined
      ? { files: container.files, key: path }
      : { files, key: path.slice((mounted?.path ?? '').length) };
  }

  #put(container: FakeContainer, file: ContainerFile): void {
    const { files, key } = this.place(container, file.path);
    files.set(key, file);
  }

  #isPublished(hostPort: number): boolean {
    return [...this.containers.values()].some(
      ({ state, spec }) => isUp(state) && spec.ports.some((port) => port.hostPort === hostPort),
    );
  }

  #nextId(): string {
    this.#created += 1;
    return digest(String(this.#created)).slice('sha256:'.length);
  }
}

type LabelFilter = { readonly key: string; readonly value?: string };

type NetworkRequest = Parameters<Runtime['createNetwork']>[0];

const ENGINE: EngineInfo = {
  version: '20.10.24',
  apiVersion: '1.41',
  operatingSystem: 'Debian GNU/Linux 12 (bookworm)',
  architecture: 'x86_64',
  cgroupVersion: 2,
  dataRoot: '/var/lib/docker',
  storageDriver: 'overlay2',
  kernelVersion: '6.1.0-13-amd64',
  cpus: 4,
  memoryBytes: 16 * 2 ** 30,
  hasContainerdImageStore: false,
  isRootless: false,
};

/** What a small shell image has. `sh` takes the few forms that the contract uses. */
const PROGRAMS: Readonly<Record<string, FakeProgram>> = {
  cat: ({ stdin, args, container }) => {
    const [path] = args;
    if (path === undefined) return { stdout: stdin };
    const file = container.files.get(path);
    return file === undefined ? { exitCode: 1, stderr: `cat: ${path}: no such file` } : { stdout: file.content };
  },
  echo: ({ args }) => ({ stdout: `${args.join(' ')}\n` }),
  false: () => ({ exitCode: 1 }),
  sleep: ({ args }) => new Promise((resolve) => setTimeout(resolve, Number(args[0]) * 1000, {}).unref()),
  stat: ({ args, container }) => {
    const file = container.files.get(args.at(-1) ?? '');
    return { stdout: `${(file?.mode ?? 0).toString(8)}\n` };
  },
};

/** Those that every engine has. */
const ENGINE_NETWORKS: readonly string[] = ['none', 'bridge', 'host'];

function summarize({ id, spec, labels, state, attachments }: FakeContainer): ContainerSummary {
  return {
    id,
    name: spec.name,
    state,
    status: state === 'running' ? 'Up 3 minutes' : state === 'paused' ? 'Up 3 minutes (Paused)' : state,
    imageRef: spec.imageRef,
    labels,
    ports: spec.ports,
    address: isUp(state) ? spec.address : '',
    addresses: { [spec.networkName]: spec.address, ...Object.fromEntries(attachments) },
  };
}

/** It holds its ports and its address. */
function isUp(state: ContainerState): boolean {
  return state === 'running' || state === 'paused';
}

function matches(labels: Labels, { key, value }: LabelFilter): boolean {
  return value === undefined ? labels[key] !== undefined : labels[key] === value;
}

function requireOurs(subject: string, present: Labels, wanted: Labels): void {
  const isSame = (label: string): boolean => present[label] !== undefined && present[label] === wanted[label];
  if (isSame(LABELS.cluster) || isSame(LABELS.registry)) return;
  throw new SandbarError('NAME_TAKEN', `a ${subject} is there already and was not made by this cluster`);
}

function missing(subject: string): SandbarError {
  return new SandbarError('NOT_FOUND', `no such ${subject}`);
}

function rejectionOf(signal: AbortSignal, over?: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = (): void => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) fail();
    signal.addEventListener('abort', fail, { once: true, ...(over === undefined ? {} : { signal: over }) });
  });
}

function configDigest(image: FakeImage): string {
  return digest(JSON.stringify(image));
}

function digest(content: string): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
