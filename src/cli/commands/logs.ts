import { logs } from '../../operations/logs.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';
import { paint } from '../terminal.ts';

export type LogsFlags = {
  readonly component?: string;
  readonly follow?: boolean;
  readonly tail?: number;
  readonly since?: string;
};

/** Lines are the result: they go to stdout as they come. */
export function runLogs(input: CommandInput<LogsFlags>): Promise<number> {
  return runCommand(input, async ({ ports, terminal }) => {
    const { cli, globals, flags } = input;
    const print = (component: string, line: string): void => {
      const text =
        globals.output === 'text'
          ? `${flags.component === undefined ? `${paint(component.padEnd(13), 'blue', terminal)} ` : ''}${line}`
          : JSON.stringify({ component, line });
      terminal.stdout.write(`${text}\n`);
    };
    const { component, tail, since } = flags;
    const clusterName = await clusterNameOf(globals, cli.host);
    const isFollowing = flags.follow === true;
    try {
      await logs({ clusterName, component, tail, since, isFollowing, signal: cli.signal }, ports.runtime, print);
    } catch (error) {
      // Ctrl-C is how following ends.
      if (!(isFollowing && cli.signal.aborted)) throw error;
    }
    return { result: undefined, text: '' };
  });
}
