import { createBucket, formatEnvironment, listBuckets, removeBucket } from '../../operations/buckets.ts';
import { accessCluster, objectStoreAccess, openObjectStore } from '../../operations/access.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { formatTable } from '../view/table.ts';

export function runBucketList(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async (context) => {
    const buckets = await listBuckets(await storeOf(input, context));
    const rows = buckets.map((bucket) => [bucket.name, bucket.created]);
    return {
      result: buckets,
      text:
        rows.length === 0
          ? 'no buckets: sandbar bucket create NAME makes one'
          : formatTable([['NAME', 'CREATED'], ...rows]),
    };
  });
}

export function runBucketCreate(
  input: CommandInput<{ readonly buckets: readonly string[]; readonly versioning?: boolean }>,
): Promise<number> {
  return runCommand(input, async (context) => {
    const store = await storeOf(input, context);
    const hasVersioning = input.flags.versioning === true;
    for (const name of input.flags.buckets) await createBucket(store, { name, hasVersioning });
    return {
      result: { created: input.flags.buckets },
      text: input.flags.buckets.map((name) => `bucket ${name} is there`).join('\n'),
    };
  });
}

export function runBucketRemove(
  input: CommandInput<{ readonly buckets: readonly string[]; readonly force?: boolean }>,
): Promise<number> {
  return runCommand(input, async (context) => {
    const store = await storeOf(input, context);
    const isForced = input.flags.force === true;
    for (const name of input.flags.buckets) await removeBucket(store, name, { isForced });
    return {
      result: { removed: input.flags.buckets },
      text: input.flags.buckets.map((name) => `bucket ${name} is gone`).join('\n'),
    };
  });
}

/** Exports for the host's shell: `eval "$(sandbar env)"`. */
export function runEnv(input: CommandInput<{ readonly shell?: string }>): Promise<number> {
  return runCommand(input, async ({ ports }) => {
    const access = await accessCluster(ports.runtime, await clusterNameOf(input.globals, input.cli.host));
    const { variables, text } = formatEnvironment(await objectStoreAccess(access, ports.runtime), input.flags.shell);
    return { result: variables, text };
  });
}

async function storeOf(input: CommandInput<unknown>, { ports }: CommandContext) {
  const access = await accessCluster(ports.runtime, await clusterNameOf(input.globals, input.cli.host));
  return openObjectStore(access, ports);
}
