/** The outside world as the operations see it. Adapters implement these; tests have in-memory ones. */
import type { Readable, Writable } from 'node:stream';
import type {
  ContainerFile,
  ContainerSpec,
  ContainerRun,
  ContainerState,
  Fingerprint,
  KubernetesObject,
  ObjectRef,
} from './resources.ts';

export type EngineInfo = {
  /** Engine version, e.g. `20.10.24`. */
  readonly version: string;
  readonly apiVersion: string;
  readonly operatingSystem: string;
  /** As the engine names it: `x86_64`, `aarch64`. */
  readonly architecture: string;
  /** `cgroup` version: 1 or 2. */
  readonly cgroupVersion: number;
  readonly dataRoot: string;
  /** How the engine keeps the layers of images, e.g. `overlay2`. */
  readonly storageDriver: string;
  readonly kernelVersion: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly hasContainerdImageStore: boolean;
  readonly isRootless: boolean;
};

export type Labels = Readonly<Record<string, string>>;

export type ContainerSummary = {
  readonly id: string;
  readonly name: string;
  readonly state: ContainerState;
  /** Docker's own words, e.g. `Up 3 minutes`. */
  readonly status: string;
  readonly imageRef: string;
  readonly labels: Labels;
  readonly ports: readonly { readonly hostPort: number; readonly containerPort: number }[];
  /** Address on the cluster's network; empty while it does not run. */
  readonly address: string;
  /** Address on each network that it is attached to or, while it does not run, will be. */
  readonly addresses: Readonly<Record<string, string>>;
};

export type NetworkSummary = {
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  readonly subnets: readonly string[];
};

export type VolumeSummary = { readonly name: string; readonly labels: Labels };

export type ExecResult = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** A container engine. Removing what is not there and stopping what is stopped succeed. */
export type Runtime = {
  info(): Promise<EngineInfo>;
  /** Containers with this label, stopped ones included; `value` narrows it to one value. */
  listContainers(label: { readonly key: string; readonly value?: string }): Promise<readonly ContainerSummary[]>;
  listVolumes(label: { readonly key: string; readonly value?: string }): Promise<readonly VolumeSummary[]>;
  /** Every network of the engine: their subnets must not clash. */
  listNetworks(): Promise<readonly NetworkSummary[]>;
  /** Image id for a reference, or undefined when it is not there. */
  findImageId(imageRef: string): Promise<string | undefined>;
  createNetwork(network: {
    readonly name: string;
    readonly subnet: string;
    readonly gateway: string;
    /** Part of the subnet from which the engine chooses addresses by itself; undefined: all of it. */
    readonly containerSubnet?: string;
    readonly labels: Labels;
  }): Promise<void>;
  removeNetwork(name: string): Promise<void>;
  /** Attaches a container, running or not, under this address; one that is attached already is refused. */
  connectNetwork(networkName: string, ref: string, address: string): Promise<void>;
  /** A container or network that is not there, or not attached, is no failure. */
  disconnectNetwork(networkName: string, ref: string): Promise<void>;
  createVolume(volume: { readonly name: string; readonly labels: Labels }): Promise<void>;
  removeVolume(name: string): Promise<void>;
  /** Creates a container without starting it and writes its files. Returns its id. */
  createContainer(container: ContainerSpec, files: readonly ContainerFile[], labels: Labels): Promise<string>;
  startContainer(ref: string): Promise<void>;
  stopContainer(ref: string, options: { readonly timeoutS: number }): Promise<void>;
  /** Stops it where it runs, then starts it. */
  restartContainer(ref: string, options: { readonly timeoutS: number }): Promise<void>;
  /** Freezes what runs in it. One that is frozen already stays so; one that does not run is refused. */
  pauseContainer(ref: string): Promise<void>;
  /** Lets it go on; one that is not frozen stays as it is. */
  unpauseContainer(ref: string): Promise<void>;
  removeContainer(ref: string): Promise<void>;
  inspectState(ref: string): Promise<ContainerRun | undefined>;
  /** Everything that the engine says of a container, in its own words; undefined when it is not there. */
  describeContainer(ref: string): Promise<Readonly<Record<string, unknown>> | undefined>;
  /** Content of a file inside a container, running or not; undefined when it is not there. */
  readFile(ref: string, path: string): Promise<string | undefined>;
  /**
   * Writes a file into a container, running or not, over one that is there. Its folder must be there, and on a volume
   * where the container's root is read-only.
   */
  writeFile(ref: string, file: ContainerFile): Promise<void>;
  exec(
    ref: string,
    command: readonly string[],
    options?: {
      readonly stdin?: Readable | string;
      readonly signal?: AbortSignal;
      /** Called with each piece of standard output as it comes; the result has all of it again. */
      readonly onOutput?: (text: string) => void;
      /** Takes standard output, byte for byte, in place of the result; it is not ended. */
      readonly output?: Writable;
    },
  ): Promise<ExecResult>;
  /** Lines of a container's log, the oldest first. Ends with the log, or with the signal when following. */
  logs(
    ref: string,
    options: {
      readonly tail?: number;
      readonly isFollowing?: boolean;
      readonly since?: string;
      readonly signal?: AbortSignal;
    },
  ): AsyncIterable<string>;
  /** `docker save` of one image as a tar stream. */
  saveImage(imageRef: string, options: { readonly platform?: string }): Promise<Readable>;
  /**
   * The same, of its layers only those with these uncompressed digests; undefined where the engine can only save images
   * whole. The stream may fail for the same reason. `labels` go on what is made for the time of reading.
   */
  saveLayers(
    imageRef: string,
    options: { readonly layers: readonly string[]; readonly labels: Labels },
  ): Promise<Readable | undefined>;
  /** Content of a file of an image, without running anything of it. */
  readImageFile(imageRef: string, path: string): Promise<Buffer>;
  inspectImage(imageRef: string): Promise<ImageSummary | undefined>;
};

export type ImageSummary = {
  readonly id: string;
  readonly tags: readonly string[];
  readonly os: string;
  readonly architecture: string;
  readonly sizeBytes: number;
  /** Uncompressed layer digests, lowest first. */
  readonly layers: readonly string[];
};

/** Where and as whom an API server is reached. PEM texts. */
export type ApiAccess = {
  readonly server: string;
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
};

/** A cluster's API server. */
export type Cluster = {
  /** GET of a path such as `/readyz`; `status` 0 when nothing answers. */
  get(
    path: string,
    options?: { readonly timeoutMs?: number },
  ): Promise<{ readonly status: number; readonly body: string }>;
  /** Objects of a kind; an empty list when the kind is not served. */
  list(
    kind: { readonly apiVersion: string; readonly kind: string },
    options: { readonly labelSelector?: string; readonly namespace?: string },
  ): Promise<readonly KubernetesObject[]>;
  /** Server-side apply, forced: the object is as given afterwards in every field that it names. */
  apply(object: KubernetesObject): Promise<void>;
  /** Creates an object that must not be there yet, and returns it as admission made it; a dry run keeps nothing of it. */
  create(object: KubernetesObject, options: { readonly isDryRun: boolean }): Promise<KubernetesObject>;
  /** Merge patch (RFC 7396): fields named are set, those that are `null` removed, lists replaced. Returns the object. */
  patch(
    object: ObjectRef,
    patch: Readonly<Record<string, unknown>>,
    options?: { readonly timeoutMs?: number },
  ): Promise<KubernetesObject>;
  remove(object: KubernetesObject): Promise<void>;
  /**
   * POST of JSON that is answered line by line while the server works; resolves with the status at the answer's end.
   * The signal ends the request. A server that does not come to its first line in time is taken for one that hangs.
   */
  post(
    path: string,
    body: unknown,
    options: {
      readonly onLine: (line: string) => void;
      readonly signal: AbortSignal;
      readonly firstLineMs?: number;
    },
  ): Promise<{ readonly status: number }>;
  close(): void;
};

/** An S3 endpoint. */
export type ObjectStore = {
  listBuckets(): Promise<readonly { readonly name: string; readonly created: string }[]>;
  /** Creating a bucket that is there already succeeds. */
  createBucket(bucket: { readonly name: string; readonly hasVersioning: boolean }): Promise<void>;
  isVersioned(bucketName: string): Promise<boolean>;
  /**
   * Refuses a bucket that is not empty unless `isForced`: then every version of every object goes with it, also those
   * under retention in governance mode; in compliance mode nobody may (CONFLICT).
   */
  removeBucket(bucketName: string, options: { readonly isForced: boolean }): Promise<void>;
  putObject(bucketName: string, object: { readonly key: string; readonly content: Buffer }): Promise<void>;
  /** An object's content, or undefined when it is not there. */
  getObject(bucketName: string, key: string): Promise<Buffer | undefined>;
};

export type DirectoryEntry = { readonly name: string; readonly isDirectory: boolean };

export type InotifyLimits = { readonly maxUserInstances: number; readonly maxUserWatches: number };

/** The user's machine: files, processes, environment. */
export type Host = {
  readonly platform: NodeJS.Platform;
  /** As Node names it: `x64`, `arm64`. */
  readonly architecture: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly homeDirectory: string;
  readonly workingDirectory: string;
  /** Where downloads and built host programs are kept. */
  readonly cacheDirectory: string;
  /** Where is kept what no other directory can be made anew from. */
  readonly dataDirectory: string;
  /** Where logs and locks are kept. */
  readonly stateDirectory: string;
  readonly isRoot: boolean;
  readonly processId: number;
  /** Versions of what runs the program. */
  readonly system: { readonly node: string; readonly release: string };
  /** Content of a file, or undefined when it is not there. */
  readFile(path: string): Promise<string | undefined>;
  /** Writes through a temporary file and a rename, following a symbolic link at `path`. */
  writeFileAtomically(path: string, content: string | Buffer, mode: number): Promise<void>;
  /** Creates a file that must not be there yet; false when it is. */
  createFile(path: string, content: string, mode: number): Promise<boolean>;
  /** Writes all that comes to a file beside it, which takes the place of `path` at the end; a failure leaves nothing. */
  writeStream(path: string, source: Readable): Promise<void>;
  /** Content of a file of any size, or undefined when it is not there. */
  openStream(path: string): Promise<Readable | undefined>;
  removeFile(path: string): Promise<void>;
  hasFile(path: string): Promise<boolean>;
  /** Time since a file was last written, or undefined when it is not there. */
  findAgeMs(path: string): Promise<number | undefined>;
  /** What a path leads to, symbolic links followed; undefined for nothing, and for a socket or a device. */
  findFileType(path: string): Promise<'Directory' | 'File' | undefined>;
  /** The path with all symbolic links resolved, or undefined when nothing is there. */
  resolvePath(path: string): Promise<string | undefined>;
  /** Makes a folder and those above it; one that is there already stays as it is. */
  makeDirectory(path: string): Promise<void>;
  /** Raises a file event at a file that is there: neither its content nor its times change. */
  touchFile(path: string): Promise<void>;
  /** Returns when nothing is at `path` any more, or when the time is over. */
  waitForRemoval(path: string, options: { readonly timeoutMs: number }): Promise<void>;
  /** Entries of a directory, or undefined when it is not one or may not be looked into. */
  listDirectory(path: string): Promise<readonly DirectoryEntry[] | undefined>;
  /** True when nothing listens on 127.0.0.1:port (or 0.0.0.0:port). */
  isPortFree(port: number): Promise<boolean>;
  /** Whether somebody has the port on 127.0.0.1; undefined where this machine does not tell of UDP. */
  isListening(port: number, protocol: 'TCP' | 'UDP'): Promise<boolean | undefined>;
  /** Who listens there, e.g. `nginx (pid 411)`, where it can be known. */
  findPortOwner(port: number): Promise<string | undefined>;
  /** IPv4 subnets that the host routes to, in CIDR notation. */
  listRoutes(): Promise<readonly string[]>;
  freeDiskBytes(path: string): Promise<number | undefined>;
  /** Limits that all containers of the host share, or undefined where the host has none of its own (not Linux). */
  findInotifyLimits(): Promise<InotifyLimits | undefined>;
  isProcessAlive(pid: number): boolean;
  /** Runs a program without input to its end; undefined where this machine has none of that name. */
  run(file: string, args: readonly string[]): Promise<ExecResult | undefined>;
  /** Runs `work` while no other process holds the lock of this name; the lock ends with its process, however that dies. */
  withLock<T>(
    name: string,
    options: { readonly onWait: (holder: string) => void; readonly signal?: AbortSignal },
    work: () => Promise<T>,
  ): Promise<T>;
  /** HTTP GET; `status` 0 when nothing answers. Certificates are not checked: only for probes on loopback. */
  httpGet(
    url: string,
    options: { readonly timeoutMs: number },
  ): Promise<{ readonly status: number; readonly body: string }>;
};

export type Clock = {
  now(): number;
  /** Rejects with the signal's reason when it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
};

/** Everything an operation may touch. */
export type Ports = {
  readonly runtime: Runtime;
  readonly host: Host;
  readonly clock: Clock;
  connectCluster(access: ApiAccess): Cluster;
  connectObjectStore(access: {
    readonly endpoint: string;
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly region: string;
  }): ObjectStore;
};

export type { Fingerprint };
