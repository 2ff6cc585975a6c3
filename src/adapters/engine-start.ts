/** Makes sure that a Docker engine answers: takes the one that does, else installs and starts the distribution's. */
import { spawn } from 'node:child_process';
import { access, mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Host } from '../model/ports.ts';
import { findEngineEndpoints } from './docker-endpoint.ts';
import { connectEngine } from './docker-engine.ts';

const STANDARD_SOCKET = '/var/run/docker.sock';
const START_PATIENCE_MS = 60_000;
const POLL_MS = 200;
const LOG_TAIL_LINES = 20;

/** Throws what is to be done by hand where it is not ours to install an engine. */
export async function provideEngine(host: Host, emit: Emit, signal: AbortSignal): Promise<void> {
  const failure = await findFailure(host);
  if (failure === undefined) return;
  if (failure.code !== 'DOCKER_MISSING' || !(await isOursToStart(host))) throw failure;
  const canInstall = await isDebianLike(host);
  if (!host.isRoot) throw withCommands(failure, { canInstall, isInstalled: await isInstalled() });
  if (!(await isInstalled())) {
    if (!canInstall) throw failure;
    await inPhase(emit, { doing: 'installing docker.io', done: 'installed docker.io' }, () => install(host, signal));
  }
  await inPhase(emit, { doing: 'starting', done: 'started' }, () => start(host, signal));
}

async function findFailure(host: Host): Promise<SandbarError | undefined> {
  try {
    (await connectEngine(host)).close();
    return undefined;
  } catch (error) {
    if (error instanceof SandbarError) return error;
    throw error;
  }
}

/** Only Linux's own engine, and only where neither DOCKER_HOST nor a docker context means another one. */
async function isOursToStart(host: Host): Promise<boolean> {
  if (host.platform !== 'linux') return false;
  const [first, ...others] = await findEngineEndpoints(host);
  return first?.kind === 'socket' && first.path === STANDARD_SOCKET && others.length > 0;
}

async function isDebianLike(host: Host): Promise<boolean> {
  const release = (await host.readFile('/etc/os-release')) ?? '';
  return /^ID(?:_LIKE)?=.*\b(?:debian|ubuntu)\b/m.test(release);
}

async function isInstalled(): Promise<boolean> {
  const { exitCode } = await execa('dockerd', ['--version'], { reject: false });
  return exitCode === 0;
}

function withCommands(
  failure: SandbarError,
  { canInstall, isInstalled }: { readonly canInstall: boolean; readonly isInstalled: boolean },
): SandbarError {
  if (!isInstalled && !canInstall) return failure;
  const install = isInstalled ? [] : ['sudo apt-get update', 'sudo apt-get install --yes docker.io'];
  return new SandbarError('DOCKER_MISSING', failure.message, {
    hint: 'run these lines, log in again, then run this once more (or run it as root, which does the same)',
    details: [...install, 'sudo systemctl start docker', 'sudo usermod -aG docker "$USER"'],
    cause: failure,
  });
}

async function install(host: Host, signal: AbortSignal): Promise<void> {
  const options = { env: { ...host.env, DEBIAN_FRONTEND: 'noninteractive' }, cancelSignal: signal };
  try {
    await execa('apt-get', ['update'], options);
    await execa('apt-get', ['install', '--yes', 'docker.io'], options);
  } catch (error) {
    signal.throwIfAborted();
    const { stderr = '', shortMessage = String(error) } = error as { stderr?: string; shortMessage?: string };
    throw new SandbarError('DOCKER_MISSING', `docker.io cannot be installed: ${shortMessage.split('\n', 1)[0] ?? ''}`, {
      hint: 'apt-get install docker.io shows why',
      details: stderr.split('\n').slice(-LOG_TAIL_LINES),
      cause: error,
    });
  }
}

async function start(host: Host, signal: AbortSignal): Promise<void> {
  const service = await serviceCommand();
  if (service !== undefined) {
    const { exitCode } = await execa(service.file, service.args, { reject: false, cancelSignal: signal });
    if (exitCode === 0 && (await answersWithin(START_PATIENCE_MS, host, signal))) return;
  }
  // Containers and other systems without a service manager that can.
  const logPath = join(host.stateDirectory, 'logs', 'dockerd.log');
  await startDetached(logPath, host.stateDirectory);
  if (await answersWithin(START_PATIENCE_MS, host, signal)) return;
  const log = await readFile(logPath, 'utf8').catch(() => '');
  throw new SandbarError('DOCKER_FAILED', `dockerd does not answer after ${String(START_PATIENCE_MS / 1000)} s`, {
    hint: `its log is ${logPath}`,
    details: log.trimEnd().split('\n').slice(-LOG_TAIL_LINES),
  });
}

async function serviceCommand(): Promise<{ readonly file: string; readonly args: readonly string[] } | undefined> {
  if (await exists('/run/systemd/system')) return { file: 'systemctl', args: ['start', 'docker'] };
  return (await exists('/etc/init.d/docker')) ? { file: 'service', args: ['docker', 'start'] } : undefined;
}

async function startDetached(logPath: string, stateDirectory: string): Promise<void> {
  await mkdir(join(stateDirectory, 'logs'), { recursive: true });
  const log = await open(logPath, 'w');
  try {
    const dockerd = spawn('dockerd', [], { detached: true, stdio: ['ignore', log.fd, log.fd] });
    // What it says of a failure to start is in its log, which is shown when it does not answer.
    dockerd.on('error', () => undefined);
    dockerd.unref();
  } finally {
    await log.close();
  }
}

async function answersWithin(patienceMs: number, host: Host, signal: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + patienceMs;
  while (performance.now() < deadline) {
    if ((await findFailure(host)) === undefined) return true;
    await sleep(POLL_MS, undefined, { signal });
  }
  return false;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function inPhase(
  emit: Emit,
  { doing, done }: { readonly doing: string; readonly done: string },
  work: () => Promise<void>,
): Promise<void> {
  const phase = 'Docker engine';
  const startedAt = performance.now();
  emit({ type: 'phase-started', phase, text: doing });
  try {
    await work();
    emit({ type: 'phase-finished', phase, text: done, ms: performance.now() - startedAt });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: performance.now() - startedAt });
    throw error;
  }
}
