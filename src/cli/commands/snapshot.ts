import path from 'node:path';
import { exportSnapshot, importSnapshot } from '../../operations/snapshot-archive.ts';
import { restoreSnapshot } from '../../operations/snapshot-restore.ts';
import { createSnapshot, findSnapshots, removeSnapshots, type SnapshotContext } from '../../operations/snapshots.ts';
import { sizeOf, type Snapshot } from '../../model/snapshots.ts';
import { loadLastSpec, loadLastSpecInTurn } from '../load-last-spec.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { formatMs } from '../view/plain.ts';
import { formatTable } from '../view/table.ts';
import { convergeAgain } from './reset.ts';

export function runSnapshotCreate(input: CommandInput<{ readonly snapshot?: string }>): Promise<number> {
  return runCommand(input, async (context) => {
    const { spec } = await loadLastSpec(input, context);
    const snapshot = await createSnapshot({ spec, name: input.flags.snapshot }, contextOf(input, context));
    return {
      result: snapshot,
      text: `snapshot ${snapshot.name} of cluster ${snapshot.cluster} is kept (${formatSize(snapshot)})`,
    };
  });
}

export function runSnapshotList(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async (context) => {
    const snapshots = await findSnapshots(await nameOf(input), contextOf(input, context));
    const rows = snapshots.map((snapshot) => [snapshot.name, snapshot.created, formatSize(snapshot)]);
    return {
      result: snapshots,
      text:
        rows.length === 0
          ? 'no snapshots: sandbar snapshot create makes one'
          : formatTable([['NAME', 'CREATED', 'SIZE'], ...rows]),
    };
  });
}

export function runSnapshotRestore(input: CommandInput<{ readonly snapshot: string }>): Promise<number> {
  return runCommand(input, async (context) => {
    const { globals, flags } = input;
    const { loaded, emit, current } = await loadLastSpecInTurn(input, context);
    const result = await restoreSnapshot(
      {
        spec: loaded.spec,
        name: flags.snapshot,
        confirm: context.confirm,
        timeoutMs: globals.timeout,
        converge: async () => convergeAgain(input, context, await current()),
      },
      contextOf(input, { ...context, emit }),
    );
    return { result, text: `cluster ${result.cluster} is as it was in ${result.snapshot} (${formatMs(result.ms)})` };
  });
}

export function runSnapshotRemove(input: CommandInput<{ readonly snapshots: readonly string[] }>): Promise<number> {
  return runCommand(input, async (context) => {
    const names = input.flags.snapshots;
    await removeSnapshots({ clusterName: await nameOf(input), names }, contextOf(input, context));
    return { result: { removed: names }, text: names.map((name) => `snapshot ${name} is gone`).join('\n') };
  });
}

export function runSnapshotExport(
  input: CommandInput<{ readonly snapshot: string; readonly path: string; readonly force?: boolean }>,
): Promise<number> {
  return runCommand(input, async (context) => {
    const { cli, flags } = input;
    const isStream = flags.path === '-';
    const file = path.resolve(cli.host.workingDirectory, flags.path);
    const target = isStream
      ? { kind: 'stream' as const, stream: cli.terminal.stdout }
      : { kind: 'file' as const, path: file, isForced: flags.force === true };
    const request = { clusterName: await nameOf(input), name: flags.snapshot, target };
    await exportSnapshot(request, contextOf(input, context));
    // Beside the archive itself nothing may stand on standard output.
    if (isStream) return { result: undefined, text: '' };
    return { result: { snapshot: flags.snapshot, file }, text: `snapshot ${flags.snapshot} is in ${flags.path}` };
  });
}

export function runSnapshotImport(
  input: CommandInput<{ readonly path: string; readonly snapshot?: string }>,
): Promise<number> {
  return runCommand(input, async (context) => {
    const { cli, flags } = input;
    const { spec } = await loadLastSpec(input, context);
    const file = path.resolve(cli.host.workingDirectory, flags.path);
    const snapshot = await importSnapshot({ spec, path: file, name: flags.snapshot }, contextOf(input, context));
    return {
      result: snapshot,
      text: `snapshot ${snapshot.name} is kept: sandbar snapshot restore ${snapshot.name} goes back to it`,
    };
  });
}

function nameOf({ globals, cli }: CommandInput<unknown>): Promise<string> {
  return clusterNameOf(globals, cli.host);
}

function contextOf({ cli }: CommandInput<unknown>, { ports, emit }: CommandContext): SnapshotContext {
  return { ports, emit, signal: cli.signal };
}

function formatSize(snapshot: Snapshot): string {
  return `${(sizeOf(snapshot) / 2 ** 20).toFixed(1)} MiB`;
}
