/** The command line that is measured, called as a user calls it; and clients that know nothing of it. */
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { request } from 'node:https';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type Dockerode from 'dockerode';
import { DockerRuntime } from '../../src/adapters/docker.ts';

export type Ended = { readonly stdout: string; readonly seconds: number };

/** A line that `sandbar -o ndjson` printed, and when, in seconds since it was called. */
export type TimedEvent = { readonly at: number; readonly type: string; readonly [field: string]: unknown };

export type HostPorts = {
  readonly api: number;
  readonly http: number;
  readonly https: number;
  readonly objectStore: number;
};

/** A cluster of its own, a kubeconfig of its own, and the engine. */
export class Subject {
  readonly clusterName: string;
  readonly docker: Dockerode;
  readonly #entry: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #directory: string;
  readonly #signal: AbortSignal;
  readonly #runtime: DockerRuntime;
  #kubectl: string | undefined;

  /** `packageDirectory` is the checkout or the installed package whose command is measured. */
  static async open(options: {
    readonly clusterName: string;
    readonly packageDirectory: string;
    readonly signal: AbortSignal;
  }): Promise<Subject> {
    const runtime = new DockerRuntime({ platform: process.platform, env: process.env, homeDirectory: homedir() });
    const directory = await mkdtemp(join(tmpdir(), 'sandbar-bench-'));
    return new Subject({ ...options, runtime, docker: await runtime.client(), directory });
  }

  private constructor(settings: {
    readonly clusterName: string;
    readonly packageDirectory: string;
    readonly signal: AbortSignal;
    readonly runtime: DockerRuntime;
    readonly docker: Dockerode;
    readonly directory: string;
  }) {
    this.clusterName = settings.clusterName;
    this.docker = settings.docker;
    this.#runtime = settings.runtime;
    this.#directory = settings.directory;
    this.#signal = settings.signal;
    this.#entry = join(settings.packageDirectory, 'bin', 'sandbar.js');
    this.#env = {
      ...process.env,
      KUBECONFIG: join(settings.directory, 'kubeconfig'),
      SANDBAR_NAME: settings.clusterName,
    };
  }

  /** Nothing of it stays: neither containers and data nor files. */
  async close(): Promise<void> {
    await run(process.execPath, [this.#entry, 'down', '--volumes', '--yes'], { env: this.#env }).catch(() => undefined);
    await this.#runtime.close();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** A folder that goes with the subject. */
  get directory(): string {
    return this.#directory;
  }

  containerName(component: string): string {
    return `sandbar-${this.clusterName}-${component}`;
  }

  /** Runs `sandbar`, which has to succeed. */
  sandbar(...args: readonly string[]): Promise<Ended> {
    return run(process.execPath, [this.#entry, ...args], this.#options());
  }

  /** `sandbar up` with what it reported and when. */
  async up(): Promise<{ readonly seconds: number; readonly events: readonly TimedEvent[]; readonly ports: HostPorts }> {
    const events: TimedEvent[] = [];
    const onLine = (line: string, at: number): void => {
      events.push({ ...(JSON.parse(line) as { type: string }), at });
    };
    const { seconds } = await run(process.execPath, [this.#entry, 'up', '-o', 'ndjson'], {
      ...this.#options(),
      onLine,
    });
    const result = events.find(({ type }) => type === 'result')?.['result'] as { ports: HostPorts } | undefined;
    if (result === undefined) throw new Error('up ended without a result');
    return { seconds, events, ports: result.ports };
  }

  /** Runs kubectl itself, the one that `sandbar kubectl` keeps in the user's cache. */
  async kubectl(args: readonly string[], input?: string): Promise<Ended> {
    this.#kubectl ??= await findKubectl();
    return run(this.#kubectl, args, { ...this.#options(), ...(input === undefined ? {} : { input }) });
  }

  /** Starts a program in a pod and hands over its lines; it ends with the subject at the latest. */
  startInPod(pod: string, command: readonly string[], onLine: (line: string) => void): { readonly stop: () => void } {
    return this.startKubectl(['exec', pod, '--', ...command], onLine);
  }

  /** Starts kubectl, which `provideKubectl` has provided, and hands over its lines; it ends with the subject at the latest. */
  startKubectl(args: readonly string[], onLine: (line: string) => void): { readonly stop: () => void } {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#signal, stop.signal]);
    const options = { ...this.#options(), signal, onLine };
    // Its end is told by what it printed, or by somebody waiting in vain.
    void run(this.#kubectl ?? '', args, options).catch(() => undefined);
    return { stop: () => stop.abort() };
  }

  /** Makes sure that there is a kubectl to be called; needs a cluster. */
  async provideKubectl(): Promise<void> {
    await this.sandbar('kubectl', 'version', '--client');
    this.#kubectl = await findKubectl();
  }

  /** Asks until the answer is there; fails when that takes too long. Returns what `question` returned. */
  async until<T>(what: string, question: () => Promise<T | undefined>): Promise<T> {
    const deadline = performance.now() + 60_000;
    for (;;) {
      this.#signal.throwIfAborted();
      const answer = await question().catch(() => undefined);
      if (answer !== undefined) return answer;
      if (performance.now() > deadline) throw new Error(`${what}: not within a minute`);
      await delay(10, undefined, { signal: this.#signal });
    }
  }

  async pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#signal });
  }

  readImageFile(imageRef: string, path: string): Promise<Buffer> {
    return this.#runtime.readImageFile(imageRef, path);
  }

  /** Runs a command in a container; its output, or undefined where it failed. */
  async exec(component: string, command: readonly string[]): Promise<string | undefined> {
    const { exitCode, stdout } = await this.#runtime.exec(this.containerName(component), command);
    return exitCode === 0 ? stdout : undefined;
  }

  #options(): { readonly env: NodeJS.ProcessEnv; readonly cwd: string; readonly signal: AbortSignal } {
    return { env: this.#env, cwd: this.#directory, signal: this.#signal };
  }
}

type RunOptions = {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  readonly input?: string;
  readonly onLine?: (line: string, at: number) => void;
};

/** Runs a program from its call to its end; one that fails throws with all that it printed. */
export function run(file: string, args: readonly string[], options: RunOptions): Promise<Ended> {
  const { env, cwd, signal, input = '', onLine } = options;
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    const seconds = (): number => (performance.now() - startedAt) / 1000;
    const child = spawn(file, args, { env, cwd, signal, stdio: 'pipe' });
    let stdout = '';
    let stderr = '';
    let seen = 0;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      for (let end = stdout.indexOf('\n', seen); end !== -1; end = stdout.indexOf('\n', seen)) {
        onLine?.(stdout.slice(seen, end), seconds());
        seen = end + 1;
      }
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdin.on('error', () => undefined).end(input);
    child.on('error', reject);
    const exited = { seconds: 0 };
    child.on('exit', () => (exited.seconds = seconds()));
    child.on('close', (code) => {
      if (code === 0) resolve({ stdout, seconds: exited.seconds });
      else reject(new Error(`${file} ${args.join(' ')} ended with ${String(code)}:\n${stdout}${stderr}`));
    });
  });
}

/** Status of a GET over TLS, 0 where nothing answers; certificates are not checked. */
export function httpsStatus(url: string): Promise<number> {
  return new Promise((resolve) => {
    const asked = request(url, { rejectUnauthorized: false, agent: false, timeout: 1000 }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on('error', () => resolve(0));
    asked.on('timeout', () => asked.destroy());
    asked.end();
  });
}

async function findKubectl(): Promise<string> {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(process.env['HOME'] ?? homedir(), '.cache');
  const folder = join(cache, 'sandbar', 'kubectl');
  const files = (await readdir(folder, { recursive: true }))
    .map((name) => join(folder, name))
    .filter((file) => file.endsWith('kubectl'));
  const aged = await Promise.all(files.map(async (file) => ({ file, stats: await stat(file) })));
  const [newest] = aged.filter(({ stats }) => stats.isFile()).toSorted((a, b) => b.stats.mtimeMs - a.stats.mtimeMs);
  if (newest === undefined) throw new Error(`there is no kubectl in ${folder}`);
  return newest.file;
}
