/** The cluster's context in the user's own kubeconfig: put there by `up`, taken out by `down`. */
import path from 'node:path';
import { readVariable } from '../config/environment.ts';
import {
  findKubeconfigEntry,
  mergeKubeconfig,
  removeFromKubeconfig,
  type KubeconfigEntry,
} from '../model/kubeconfig.ts';
import type { Host } from '../model/ports.ts';

const PRIVATE = 0o600;

/**
 * kubectl holds its lock for the time of one write; it never waits for one, and leaves it behind when it is killed. One
 * of this age has no owner any more, and nobody waits longer for a live one.
 */
const STALE_LOCK_MS = 5_000;

/** Puts an entry into the user's kubeconfig and makes its context the current one. Returns the file's path. */
export async function addKubeconfigEntry(host: Host, entry: KubeconfigEntry): Promise<string> {
  const file = await findKubeconfigFile(host);
  await withFileLock(host, file, async () => {
    const text = await host.readFile(file);
    const merged = mergeKubeconfig(text === undefined ? undefined : { file, text }, entry);
    if (merged !== text) await host.writeFileAtomically(file, merged, PRIVATE);
  });
  return file;
}

/** Takes an entry out of every kubeconfig that has it; the current context is unset where it was this one. */
export async function removeKubeconfigEntry(host: Host, contextName: string): Promise<readonly string[]> {
  const changed: string[] = [];
  for (const file of listKubeconfigFiles(host)) {
    const remaining = async (): Promise<string | undefined> => {
      const text = await host.readFile(file);
      return text === undefined ? undefined : removeFromKubeconfig({ file, text }, contextName);
    };
    // Looked at without the lock first: a file without the entry may be one that cannot be written.
    if ((await remaining()) === undefined) continue;
    await withFileLock(host, file, async () => {
      const text = await remaining();
      if (text === undefined) return;
      await host.writeFileAtomically(file, text, PRIVATE);
      changed.push(file);
    });
  }
  return changed;
}

/** The entry of this name as kubectl would find it: in the first file that has it. */
export async function readKubeconfigEntry(
  host: Host,
  contextName: string,
): Promise<ReturnType<typeof findKubeconfigEntry>> {
  for (const file of listKubeconfigFiles(host)) {
    const text = await host.readFile(file);
    const entry = text === undefined ? undefined : findKubeconfigEntry({ file, text }, contextName);
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** The file that kubectl would write to: the first of KUBECONFIG that exists, else its last, else `~/.kube/config`. */
export async function findKubeconfigFile(host: Host): Promise<string> {
  const files = listKubeconfigFiles(host);
  for (const file of files) {
    if (await host.hasFile(file)) return file;
  }
  return files.at(-1) ?? defaultFile(host);
}

function listKubeconfigFiles(host: Host): readonly string[] {
  const separator = host.platform === 'win32' ? ';' : ':';
  const listed = (readVariable(host.env, 'KUBECONFIG') ?? '').split(separator).filter((file) => file !== '');
  if (listed.length === 0) return [defaultFile(host)];
  return [...new Set(listed.map((file) => path.resolve(host.workingDirectory, file)))];
}

function defaultFile(host: Host): string {
  return path.join(host.homeDirectory, '.kube', 'config');
}

/**
 * Holds the lock that kubectl itself uses, the file's name with `.lock`, made exclusively. Sandbar's processes take
 * turns by their own lock first: else two of them could take the same stale file away, the second one a fresh one.
 */
async function withFileLock(host: Host, file: string, work: () => Promise<void>): Promise<void> {
  const lock = `${file}.lock`;
  await host.withLock('kubeconfig', { onWait: () => undefined }, async () => {
    while (!(await host.createFile(lock, `${String(host.processId)}\n`, PRIVATE))) {
      const waitMs = await findRemainingMs(host, lock);
      if (waitMs > 0) await host.waitForRemoval(lock, { timeoutMs: waitMs });
      else await host.removeFile(lock);
    }
    try {
      await work();
    } finally {
      await host.removeFile(lock);
    }
  });
}

/** How long the lock's owner may still take; 0 when it is gone. A lock of ours holds a pid, one of kubectl nothing. */
async function findRemainingMs(host: Host, lock: string): Promise<number> {
  const ageMs = await host.findAgeMs(lock);
  if (ageMs === undefined) return 1;
  // kubectl makes its lock without any permission to read it.
  const content = await host.readFile(lock).catch(() => '');
  const pid = Number((content ?? '').trim());
  if (pid > 0 && !host.isProcessAlive(pid)) return 0;
  return Math.max(0, STALE_LOCK_MS - Math.max(0, ageMs));
}
