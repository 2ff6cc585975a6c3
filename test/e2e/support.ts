/**
 * What the end-to-end tests stand on: the command line as a user starts it, in a child process with directories of its
 * own, and clients that know nothing of Sandbar (kubectl itself, the Docker API, HTTP) to look at what it did.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type Dockerode from 'dockerode';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment } from '../fixtures/docker.ts';

export { eventually } from '../fixtures/eventually.ts';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const SANDBAR = join(ROOT, 'bin', 'sandbar.js');
const ARTIFACTS = join(ROOT, '.sandbar', 'artifacts');

/** Programs that Sandbar downloads or builds are the same for every test, and for the user. */
const CACHE_HOME = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');

export const COMPONENTS = ['control-plane', 'agent', 'dns', 'ingress', 'object-store', 'metrics', 'ports'] as const;
export type ComponentName = (typeof COMPONENTS)[number];

/** `exitCode` is -1 when a signal ended the program. */
export type RunResult = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

export type RunOptions = {
  readonly stdin?: string;
  /** Added to the sandbox' own; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory?: string;
  /** Called with each line of stdout, and with a function that sends the program a signal. */
  readonly onLine?: (line: string, kill: (signal: NodeJS.Signals) => void) => void;
  /** A script of the test's own in place of `bin/sandbar.js`. */
  readonly entry?: string;
};

/** A program that runs. */
export type Running = { readonly child: ChildProcess; readonly ended: Promise<RunResult> };

export type HostPorts = {
  readonly api: number;
  readonly http: number;
  readonly https: number;
  readonly objectStore: number;
  readonly objectStoreConsole: number;
};

/** What `sandbar up -o ndjson` said. */
export type UpOutput = {
  readonly events: readonly { readonly type: string; readonly text?: string; readonly [field: string]: unknown }[];
  readonly steps: readonly { readonly id: string; readonly cause: string; readonly losesData: boolean }[];
  readonly ports: HostPorts;
};

export type Sandbox = {
  /** Name of the cluster; every command gets it as SANDBAR_NAME. */
  readonly name: string;
  /** Name of its registry; every command gets it as SANDBAR_REGISTRY. */
  readonly registryName: string;
  /** A working directory without any sandbar.yaml above it. */
  readonly directory: string;
  /** Parent of all directories that commands of this sandbox write to. */
  readonly home: string;
  /** Path of the kubeconfig that `up` writes and `kubectl` reads. */
  readonly kubeconfig: string;
  readonly docker: Dockerode;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Runs `sandbar`; any exit code is fine. */
  run(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Starts `sandbar` without waiting for its end. */
  start(args: readonly string[], options?: RunOptions): Running;
  /** Runs `sandbar`; throws with all that it printed unless it ends with 0. Returns stdout. */
  must(args: readonly string[], options?: RunOptions): Promise<string>;
  /** `sandbar up`, which has to succeed, with what it planned and reported. */
  up(args?: readonly string[], options?: RunOptions): Promise<UpOutput>;
  /** Runs kubectl itself, not through `sandbar`; any exit code is fine. */
  kubectl(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Runs kubectl itself; throws unless it ends with 0. Returns stdout. */
  mustKubectl(args: readonly string[], options?: RunOptions): Promise<string>;
  /** Where kubectl itself is, for programs that call it. */
  kubectlPath(): Promise<string>;
  /** Starts kubectl itself without waiting for its end. */
  startKubectl(args: readonly string[], options?: RunOptions): Promise<Running>;
  /** An object as the API server has it. */
  getObject(...args: readonly string[]): Promise<KubernetesJson>;
  containerName(component: ComponentName): string;
  /** `docker inspect` of a component. */
  inspect(component: ComponentName): Promise<Dockerode.ContainerInspectInfo>;
  /** Ids of all containers of the cluster, by component. */
  containerIds(): Promise<Readonly<Record<string, string>>>;
  /** Host ports as Docker publishes them; `NaN` for what is not published. */
  ports(): Promise<HostPorts>;
  writeConfig(yaml: string): Promise<string>;
  /** Removes the cluster with its data, and the directories. Happens by itself after the last test. */
  dispose(): Promise<void>;
};

/** As much of an object of the API as tests look at; `items` in a list only, and so on. */
export type KubernetesJson = {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status: {
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
    readonly [field: string]: unknown;
  };
  readonly data: Readonly<Record<string, string>>;
  readonly items: readonly KubernetesJson[];
  readonly [field: string]: unknown;
};

/**
 * A cluster for the tests of the `describe` block (or file) that calls this: nothing of it exists before the first
 * `up`, and nothing is left after the last test. What a failed test needs to be understood is kept in
 * `.sandbar/artifacts/`.
 */
export function createSandbox(purpose: string): Sandbox {
  const sandbox = new TestSandbox(`e2e-${purpose}-${String(process.pid)}`);
  beforeAll(() => sandbox.prepare());
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await sandbox.keepArtifacts(task.name);
  });
  afterAll(() => sandbox.dispose());
  return sandbox;
}

class TestSandbox implements Sandbox {
  readonly name: string;
  /** Temporary directory of this sandbox alone. */
  #home = '';
  readonly #runtime = new DockerRuntime(environment);
  #docker: Dockerode | undefined;
  #kubectl: string | undefined;
  readonly #transcript: string[] = [];

  constructor(name: string) {
    this.name = name;
  }

  async prepare(): Promise<void> {
    // A short path: sockets below it are limited to about a hundred characters.
    this.#home = await mkdtemp(join(tmpdir(), 'sandbar-e2e-'));
    await mkdir(this.directory);
    this.#docker = await this.#runtime.client();
  }

  get home(): string {
    return this.#home;
  }

  get directory(): string {
    return join(this.#home, 'work');
  }

  get registryName(): string {
    return `${this.name}-registry`;
  }

  get kubeconfig(): string {
    return join(this.#home, 'kubeconfig');
  }

  get docker(): Dockerode {
    if (this.#docker === undefined) throw new Error('the sandbox is there from beforeAll on');
    return this.#docker;
  }

  get env(): Readonly<Record<string, string | undefined>> {
    return {
      ...process.env,
      CI: undefined,
      SANDBAR_FILE: undefined,
      HOME: this.#home,
      XDG_STATE_HOME: join(this.#home, 'state'),
      XDG_DATA_HOME: join(this.#home, 'data'),
      XDG_CACHE_HOME: CACHE_HOME,
      DOCKER_CONFIG: process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker'),
      KUBECONFIG: this.kubeconfig,
      SANDBAR_NAME: this.name,
      SANDBAR_REGISTRY: this.registryName,
      NO_COLOR: '1',
    };
  }

  start(args: readonly string[], options: RunOptions = {}): Running {
    return this.#start(process.execPath, [options.entry ?? SANDBAR, ...args], options);
  }

  run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return this.start(args, options).ended;
  }

  async must(args: readonly string[], options: RunOptions = {}): Promise<string> {
    return succeeded(`sandbar ${args.join(' ')}`, await this.run(args, options));
  }

  async up(args: readonly string[] = [], options: RunOptions = {}): Promise<UpOutput> {
    const lines = (await this.must(['up', '-o', 'ndjson', ...args], options)).trim().split('\n');
    const events = lines.map((line) => JSON.parse(line) as UpOutput['events'][number]);
    const result = events.find((event) => event.type === 'result')?.['result'] as Pick<UpOutput, 'steps' | 'ports'>;
    return { events, steps: result.steps, ports: result.ports };
  }

  async kubectlPath(): Promise<string> {
    this.#kubectl ??= await this.#findKubectl();
    return this.#kubectl;
  }

  async startKubectl(args: readonly string[], options: RunOptions = {}): Promise<Running> {
    return this.#start(await this.kubectlPath(), args, options);
  }

  async kubectl(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return (await this.startKubectl(args, options)).ended;
  }

  async mustKubectl(args: readonly string[], options: RunOptions = {}): Promise<string> {
    return succeeded(`kubectl ${args.join(' ')}`, await this.kubectl(args, options));
  }

  async getObject(...args: readonly string[]): Promise<KubernetesJson> {
    return JSON.parse(await this.mustKubectl(['get', '-o', 'json', ...args])) as KubernetesJson;
  }

  containerName(component: ComponentName): string {
    return `sandbar-${this.name}-${component}`;
  }

  inspect(component: ComponentName): Promise<Dockerode.ContainerInspectInfo> {
    return this.docker.getContainer(this.containerName(component)).inspect();
  }

  async containerIds(): Promise<Readonly<Record<string, string>>> {
    const containers = await this.#listContainers();
    return Object.fromEntries(containers.map(({ Id, Labels }) => [Labels['dev.sandbar.component'] ?? '', Id]));
  }

  async ports(): Promise<HostPorts> {
    const ports = new Map<string, number>();
    for (const { Labels, Ports } of await this.#listContainers()) {
      const component = Labels['dev.sandbar.component'] ?? '';
      for (const { PrivatePort, PublicPort } of Ports) ports.set(`${component}/${String(PrivatePort)}`, PublicPort);
    }
    const portOf = (key: string): number => ports.get(key) ?? Number.NaN;
    return {
      api: portOf('control-plane/6443'),
      http: portOf('ingress/80'),
      https: portOf('ingress/443'),
      objectStore: portOf('object-store/9000'),
      objectStoreConsole: portOf('object-store/9001'),
    };
  }

  async writeConfig(yaml: string): Promise<string> {
    const file = join(this.directory, 'sandbar.yaml');
    await writeFile(file, yaml);
    return file;
  }

  async dispose(): Promise<void> {
    try {
      await this.must(['down', '--volumes', '--yes']);
      // The images of a registry outlive every cluster.
      for (const { Name } of (await this.docker.listVolumes()).Volumes) {
        if (Name === this.registryName) await this.docker.getVolume(Name).remove();
      }
    } finally {
      await this.#runtime.close();
      await rm(this.#home, { recursive: true, force: true });
    }
  }

  /** All that was run and printed, and what the containers say. */
  async keepArtifacts(testName: string): Promise<void> {
    const directory = join(ARTIFACTS, this.name, testName.replace(/[^a-z0-9]+/gi, '-').slice(0, 80));
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'commands.txt'), this.#transcript.join('\n'));
    for (const { Id, Names, State, Status } of await this.#listContainers()) {
      const log = await this.docker.getContainer(Id).logs({ stdout: true, stderr: true, timestamps: true, tail: 2000 });
      const name = basename(Names[0] ?? Id);
      await writeFile(join(directory, `${name}.log`), `${State}: ${Status}\n${withoutFrames(log)}`);
    }
    for (const args of [
      ['get', 'all', '-A', '-o', 'wide'],
      ['get', 'events', '-A'],
    ]) {
      const { stdout, stderr } = await this.kubectl([...args, '--request-timeout=3s']).catch(asText);
      await writeFile(join(directory, `kubectl-${args[1] ?? ''}.txt`), stdout + stderr);
    }
    process.stderr.write(`artifacts of "${testName}": ${directory}\n`);
  }

  async #listContainers(): Promise<Dockerode.ContainerInfo[]> {
    return this.docker.listContainers({ all: true, filters: { label: [`dev.sandbar.cluster=${this.name}`] } });
  }

  /** The kubectl that `sandbar kubectl` has put into the cache. */
  async #findKubectl(): Promise<string> {
    const images = JSON.parse(await this.must(['image', 'ls', '-o', 'json'])) as { name: string; ref: string }[];
    const tag = images.find(({ name }) => name === 'kubectl')?.ref.replace(/^.*:/, '') ?? '';
    const path = join(CACHE_HOME, 'sandbar', 'kubectl', tag, 'kubectl');
    if (!existsSync(path)) await this.must(['kubectl', 'version', '--client']);
    return path;
  }

  #start(file: string, args: readonly string[], options: RunOptions): Running {
    const startedAt = performance.now();
    const child = spawn(file, args, {
      cwd: options.workingDirectory ?? this.directory,
      env: { ...this.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    let seen = 0;
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
      for (let end = stdout.indexOf('\n', seen); end !== -1; end = stdout.indexOf('\n', seen)) {
        options.onLine?.(stdout.slice(seen, end), (signal) => child.kill(signal));
        seen = end + 1;
      }
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
    // A program that reads nothing may have ended before its input was written.
    child.stdin.on('error', () => undefined).end(options.stdin ?? '');
    const ended = new Promise<RunResult>((resolve, reject) => {
      child.on('error', reject).on('close', (exitCode, signal) => {
        const end = signal === null ? `exit code ${String(exitCode)}` : `killed by ${signal}`;
        const ms = Math.round(performance.now() - startedAt);
        this.#transcript.push(`$ ${basename(file)} ${args.join(' ')}\n${stdout}${stderr}(${end}, ${String(ms)} ms)\n`);
        resolve({ exitCode: exitCode ?? -1, stdout, stderr });
      });
    });
    return { child, ended };
  }
}

function succeeded(command: string, { exitCode, stdout, stderr }: RunResult): string {
  if (exitCode === 0) return stdout;
  throw new Error(`${command} ended with ${String(exitCode)}:\n${stdout}${stderr}`);
}

function asText(error: unknown): Pick<RunResult, 'stdout' | 'stderr'> {
  return { stdout: '', stderr: String(error) };
}

/** Docker sends both streams of a log in frames with a header of eight bytes. */
export function withoutFrames(log: Buffer): string {
  const parts: Buffer[] = [];
  for (let start = 0; start + 8 <= log.length;) {
    const end = start + 8 + log.readUInt32BE(start + 4);
    parts.push(log.subarray(start + 8, end));
    start = end;
  }
  return Buffer.concat(parts).toString('utf8');
}
