import { relay } from '../../operations/relay.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';

export function runRelay(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async ({ ports }) => {
    const { cli, globals } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    await relay({ clusterName, signal: cli.signal }, ports, cli.watchFiles);
    return { result: undefined, text: '' };
  });
}
