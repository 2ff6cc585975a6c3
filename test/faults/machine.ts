/**
 * A machine of the tests' own: namespaces that `npm run faults` has opened, with a disk, a network and a Docker engine
 * of which nobody else knows. So the engine may crash, the power may fail, the disk may be full and `docker system
 * prune` may be meant, without the user's own engine noticing.
 */
import { execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { eventually, ROOT } from '../e2e/support.ts';

const execute = promisify(execFile);

/** Set by bin/test.js, inside the namespaces only: outside of them nothing here may run. */
export const isOwnMachine = process.env['SANDBAR_OWN_MACHINE'] === '1';

const FOLDER = join(ROOT, '.sandbar', 'faults');
export const DISK = join(FOLDER, 'disk.img');
const IMAGES = join(FOLDER, 'images.tar');
const DOCKER_ROOT = '/var/lib/docker';
/** The process whose end is the end of every process of the engine and of its containers, at once. */
const POWER_FILE = '/run/power.pid';
const ENGINE_FILE = '/run/docker.pid';

/** Runs a program of the machine; what it printed. */
export async function run(file: string, ...args: readonly string[]): Promise<string> {
  return (await execute(file, args)).stdout;
}

/** Makes the disk and the network, and starts the engine with all images that tests need. */
export async function install(): Promise<void> {
  await run('mount', '--make-rprivate', '/');
  await run('mount', '-t', 'tmpfs', 'tmpfs', '/run');
  await run('ip', 'link', 'set', 'lo', 'up');
  await connectToWorld();
  await rm(DISK, { force: true });
  await run('truncate', '--size=12G', DISK);
  await run('mkfs.ext4', '-q', '-F', DISK);
  await powerOn();
  await untilEngineAnswers();
  await loadImages();
}

/** Brings in every image that tests need. */
export async function loadImages(): Promise<void> {
  await run('docker', 'load', '--quiet', '--input', IMAGES);
}

/** A network card with a default route, behind which nobody is. */
export async function connectToWorld(): Promise<void> {
  await run('ip', 'link', 'add', 'world', 'type', 'veth', 'peer', 'name', 'beyond');
  await run('ip', 'link', 'set', 'beyond', 'up');
  await run('ip', 'address', 'add', '192.0.2.2/24', 'dev', 'world');
  await run('ip', 'link', 'set', 'world', 'up');
  await run('ip', 'route', 'add', 'default', 'via', '192.0.2.1');
}

/** Starts the engine, without waiting for it. */
export async function powerOn(): Promise<void> {
  await mkdir('/run/docker', { recursive: true });
  await run('mount', '-o', 'loop', DISK, DOCKER_ROOT);
  const args = ['--pid', '--mount', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', ENGINE_SCRIPT];
  await writeFile(POWER_FILE, String(startDetached('unshare', args)));
}

/** The first process of the engine's own namespace: takes in orphans, and starts the engine when it is told to. */
const ENGINE_SCRIPT = `
  start() { dockerd & }
  trap start USR1
  start
  while :; do wait; sleep 0.05; done
`;

/** Every process of the engine and of every container ends in the same moment; what the kernel held for them goes, too. */
export async function powerOff(): Promise<void> {
  const pid = Number(await readFile(POWER_FILE, 'utf8'));
  process.kill(pid, 'SIGKILL');
  await eventually('no power', async () => ((await engineProcesses()).length === 0 ? true : undefined));
  for (const bridge of await dockerBridges()) await run('ip', 'link', 'delete', bridge);
  for (const table of ['nat', 'filter', 'mangle', 'raw']) {
    await run('iptables', '-t', table, '--flush');
    await run('iptables', '-t', table, '--delete-chain');
  }
  await rm('/run/docker', { recursive: true, force: true });
  await rm(ENGINE_FILE, { force: true });
  // Groups of processes outlive them in a kernel that goes on; others' are not ours to remove.
  for (const id of await readdir(join(DOCKER_ROOT, 'containers'))) {
    await run('find', '/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*docker/${id}*`, '-exec', 'rmdir', '{}', '+');
  }
  await eventually('the disk is free', () =>
    run('umount', DOCKER_ROOT).then(
      () => true,
      () => undefined,
    ),
  );
}

/** The engine ends as for an update of itself, with every container, and is started again; nobody waits for it. */
export async function restartEngine(): Promise<void> {
  await inEngine('sh', '-c', `kill -TERM $(cat ${ENGINE_FILE})`);
  await startEngineAgain();
}

/** The engine and its containerd die; the processes of containers do not. */
export async function crashEngine(): Promise<void> {
  // containerd may end with its parent before it is its turn.
  await inEngine('sh', '-c', `kill -KILL $(cat ${ENGINE_FILE}) $(pidof containerd) || true`);
  await rm(ENGINE_FILE, { force: true });
  await startEngineAgain();
}

async function startEngineAgain(): Promise<void> {
  const ask = (): Promise<true | undefined> =>
    run('docker', 'version').then(
      () => undefined,
      () => true,
    );
  await eventually('the engine has ended', ask);
  await eventually('no engine', () => Promise.resolve(!existsSync(ENGINE_FILE) || undefined));
  await inEngine('kill', '-USR1', '1');
}

/** Runs a program among the processes of the engine, whose numbers are those that Docker tells. */
export async function inEngine(file: string, ...args: readonly string[]): Promise<string> {
  const [first = ''] = await engineProcesses();
  return run('nsenter', '--target', first, '--pid', '--mount', file, ...args);
}

/** Kills a process as a crash of its own would: Docker is not told. */
export async function killProcess(pid: number): Promise<void> {
  await inEngine('kill', '-KILL', String(pid));
}

/** The processes just below the power switch. */
async function engineProcesses(): Promise<readonly string[]> {
  const pid = (await readFile(POWER_FILE, 'utf8')).trim();
  const children = await run('sh', '-c', `cat /proc/${pid}/task/${pid}/children 2>/dev/null || true`);
  return children.split(' ').filter(Boolean);
}

/** The cards of containers are gone with them. */
async function dockerBridges(): Promise<readonly string[]> {
  const links = JSON.parse(await run('ip', '-json', 'link')) as readonly { readonly ifname: string }[];
  return links.map(({ ifname }) => ifname).filter((name) => /^(br-|docker)/.test(name));
}

export async function untilEngineAnswers(): Promise<void> {
  const answers = (): Promise<true | undefined> =>
    run('docker', 'version').then(
      () => true,
      () => undefined,
    );
  await eventually('the engine answers', answers, { timeoutMs: 180_000 });
}

function startDetached(file: string, args: readonly string[]): number {
  const log = openSync(join(FOLDER, 'dockerd.log'), 'a');
  const child = spawn(file, args, { detached: true, stdio: ['ignore', log, log] });
  child.unref();
  closeSync(log);
  return child.pid ?? -1;
}
