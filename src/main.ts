/** Wires the adapters to the command line; the only file that sees both. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClock } from './adapters/clock.ts';
import { createHost } from './adapters/host.ts';
import { SandbarError } from './model/errors.ts';
import type { ImageBuilder } from './model/images.ts';
import type { Clock, Host } from './model/ports.ts';
import type { AllPorts, CliDependencies } from './cli/context.ts';
import { runProgram } from './cli/program.ts';
import { reportError } from './cli/report-error.ts';
import { openTerminal } from './cli/terminal.ts';

const INTERRUPTED = 130;
/** What a shell sees of a program that wrote into a pipe nobody reads any more, as with `sandbar logs | head`. */
const BROKEN_PIPE = 141;

/** Runs one command line and returns its exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const host = createHost();
  const clock = createClock();
  const interruption = new AbortController();
  const galleryPath = join(packageDirectory(), 'docs', 'examples', 'gallery');
  const terminal = openTerminal({
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
  });
  const opened: { close?: () => Promise<void> } = {};
  let isPassingThrough = false;
  const onSignal = (): void => {
    // A program on the terminal gets the same signal and decides.
    if (isPassingThrough) return;
    if (interruption.signal.aborted) process.exit(INTERRUPTED);
    interruption.abort(
      new SandbarError('INTERRUPTED', 'interrupted', { hint: 'run the same command again: it goes on from here' }),
    );
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(BROKEN_PIPE);
      throw error;
    });
  }
  const cli: CliDependencies = {
    host,
    clock,
    terminal,
    signal: interruption.signal,
    version: readVersion(),
    openPorts: async () => {
      const { ports, close } = await openPorts(host, clock);
      opened.close = close;
      return ports;
    },
    provideEngine: async (emit) => {
      const { provideEngine } = await import('./adapters/engine-start.ts');
      await provideEngine(host, emit, interruption.signal);
    },
    gallery: { path: galleryPath, readBytes: (file) => readFile(join(galleryPath, file)) },
    mintIdentity: async (...args) => (await import('./adapters/pki.ts')).mintIdentity(...args),
    mintRoot: async (name) => (await import('./adapters/pki.ts')).mintRoot(name),
    runProgram: async (file, args, options) => {
      const { runOnTerminal } = await import('./adapters/program.ts');
      isPassingThrough = true;
      try {
        return await runOnTerminal(file, args, options);
      } finally {
        isPassingThrough = false;
      }
    },
    startRelay: async (clusterName) => {
      const { startDetached } = await import('./adapters/program.ts');
      const logFile = join(host.stateDirectory, 'logs', `relay-${clusterName}.log`);
      await startDetached(join(packageDirectory(), 'bin', 'sandbar.js'), ['relay', '--name', clusterName], logFile);
    },
    watchFiles: async (source, options) => {
      const { watchFiles } = await import('./adapters/file-watch.ts');
      await watchFiles(source, options);
    },
  };
  try {
    return await runProgram(argv, cli);
  } catch (error) {
    return reportError(error, { output: 'text', debug: argv.includes('--debug') }, terminal);
  } finally {
    await opened.close?.();
  }
}

async function openPorts(
  host: Host,
  clock: Clock,
): Promise<{ readonly ports: AllPorts; readonly close: () => Promise<void> }> {
  const [{ DockerRuntime }, { KubernetesCluster }, { S3ObjectStore }, { DockerImageBuilder }] = await Promise.all([
    import('./adapters/docker.ts'),
    import('./adapters/kubernetes.ts'),
    import('./adapters/object-store.ts'),
    import('./adapters/image-builder.ts'),
  ]);
  const runtime = new DockerRuntime(host);
  const docker = await runtime.client();
  const openImages = (imagesDirectory: string): ImageBuilder =>
    new DockerImageBuilder({
      docker,
      imagesDirectory,
      logDirectory: join(host.stateDirectory, 'logs'),
      env: host.env,
      homeDirectory: host.homeDirectory,
      isRoot: host.isRoot,
    });
  const ports: AllPorts = {
    runtime,
    images: openImages(join(packageDirectory(), 'images')),
    openImages,
    host,
    clock,
    connectCluster: (access) => new KubernetesCluster(access),
    connectObjectStore: (access) => new S3ObjectStore(access),
  };
  return { ports, close: () => runtime.close() };
}

/** The package's root: this file is compiled into `dist/`. */
function packageDirectory(): string {
  return dirname(dirname(fileURLToPath(import.meta.url)));
}

function readVersion(): string {
  const text = readFileSync(join(packageDirectory(), 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
