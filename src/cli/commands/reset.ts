import { parseKept } from '../../config/keep.ts';
import { reset, type ResetResult } from '../../operations/reset.ts';
import { converge } from '../../operations/up.ts';
import { loadLastSpecInTurn } from '../load-last-spec.ts';
import type { LoadedSpec } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { formatMs } from '../view/plain.ts';
import { upWithContext } from './up.ts';

export type ResetFlags = { readonly keep?: readonly string[]; readonly hard?: boolean };

export function runReset(input: CommandInput<ResetFlags>): Promise<number> {
  return runCommand(input, async (context) => {
    const { cli, globals, flags } = input;
    const kept = parseKept(flags.keep ?? []);
    const { loaded, emit, current } = await loadLastSpecInTurn(input, context);
    const { ports, confirm } = context;
    const result = await reset(
      {
        spec: loaded.spec,
        kept,
        isHard: flags.hard === true,
        confirm,
        timeoutMs: globals.timeout,
        signal: cli.signal,
        converge: async () => convergeAgain(input, context, await current()),
      },
      ports,
      emit,
    );
    return { result, text: formatReset(result) };
  });
}

/** What `up` does, for operations that hold the cluster's lock and have asked already. */
export async function convergeAgain(
  { cli, globals }: CommandInput<unknown>,
  { ports, emit, confirm }: CommandContext,
  loaded: LoadedSpec,
): Promise<void> {
  await upWithContext({ cli, globals, flags: {} }, { ...loaded, ports, emit, confirm }, converge);
}

function formatReset({ cluster, pods, volumes, buckets, kept, ms }: ResetResult): string {
  const gone = [count(pods, 'pod'), count(volumes, 'volume'), count(buckets, 'bucket')].join(', ');
  const stays = kept.length === 0 ? '' : `; kept ${kept.join(', ')}`;
  return `cluster ${cluster} is as it was after up (${formatMs(ms)}): ${gone} gone${stays}`;
}

function count(number: number, noun: string): string {
  return `${String(number)} ${noun}${number === 1 ? '' : 's'}`;
}
