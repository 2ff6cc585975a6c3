/** What the node says of the mounts: which of them are in place, and why the others are not. */
import { SandbarError } from '../model/errors.ts';
import { formatWanted, mountComponentOf, type MountRecord } from '../model/mounts.ts';
import { containerName, LABELS } from '../model/names.ts';
import type { ContainerSummary, Runtime } from '../model/ports.ts';

/** A mount as the node has it. */
export type PlacedMount = {
  readonly id: string;
  readonly state: 'attached' | 'stale' | 'waiting' | 'failed';
  /** Why it is not attached. */
  readonly detail: string;
  readonly fileSystem: string;
  /** `unsupported`: a container's user is not the owner of the files on the host, and cannot be made to look like it. */
  readonly ownership: 'same' | 'mapped' | 'unsupported' | '';
  readonly owner?: { readonly uid: number; readonly gid: number };
  readonly users?: readonly { readonly uid: number; readonly gid: number }[];
};

const LOG_LINES = 10;

/** Every mount that the node knows of. */
export async function listPlaced(runtime: Runtime, clusterName: string): Promise<readonly PlacedMount[]> {
  const command = ['sandbar-agent', 'mounts', 'list'];
  const { exitCode, stdout, stderr } = await runtime.exec(containerName(clusterName, 'agent'), command);
  if (exitCode !== 0) {
    throw new SandbarError('COMMAND_FAILED', `the agent could not list the mounts: ${stderr.trim()}`, {
      hint: 'sandbar logs agent shows more',
    });
  }
  return JSON.parse(stdout) as readonly PlacedMount[];
}

/** The agent does the mounting: nothing is begun without it. */
export function requireAgent(clusterName: string, containers: readonly ContainerSummary[]): void {
  const agent = containers.find(({ labels }) => labels[LABELS.component] === 'agent');
  if (agent?.state === 'running') return;
  throw new SandbarError(
    'CLUSTER_NOT_RUNNING',
    `the agent of cluster "${clusterName}" is ${agent?.state ?? 'missing'}, and it is what mounts`,
    { hint: 'sandbar up starts what is stopped and repairs what is missing' },
  );
}

/** Returns once the node has the mount in place; the error of one that does not come says why. */
export async function waitUntilPlaced(
  record: MountRecord,
  clusterName: string,
  runtime: Runtime,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const timeout = `${String(Math.ceil(timeoutMs / 1000))}s`;
  const command = ['sandbar-agent', 'mounts', 'wait', formatWanted(record), '--timeout', timeout];
  const { exitCode, stderr } = await runtime.exec(containerName(clusterName, 'agent'), command, { signal });
  if (exitCode === 0) return;
  const component = mountComponentOf(record.root);
  const container = containerName(clusterName, component);
  const state = await runtime.inspectState(container);
  const reason = stderr.trim() || 'the agent does not say why';
  if (state?.state !== 'running') {
    const end = state === undefined ? 'is gone' : `is ${state.state} (exit code ${String(state.exitCode)})`;
    throw new SandbarError('MOUNT_FAILED', `${record.source} is not mounted: container ${container} ${end}`, {
      details: [reason, ...(await lastLines(runtime, container))],
      hint: `docker logs ${container} shows more; the same command tries again`,
    });
  }
  throw new SandbarError('TIMED_OUT', `${record.source} was not mounted within ${timeout}: ${reason}`, {
    details: await lastLines(runtime, container),
    hint: `docker logs ${container} and sandbar logs agent show more; the same command tries again`,
  });
}

async function lastLines(runtime: Runtime, container: string): Promise<readonly string[]> {
  const lines: string[] = [];
  try {
    for await (const line of runtime.logs(container, { tail: LOG_LINES })) lines.push(line);
  } catch {
    // The failure itself is reported; that the log cannot be had must not hide it.
  }
  return lines;
}
