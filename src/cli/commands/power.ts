/** Commands that stop, freeze and start a cluster as it is. */
import { accessCluster, withClusterLock } from '../../operations/access.ts';
import { pause, restart, resume, stop, type PowerRequest, type PowerResult } from '../../operations/power.ts';
import { converge } from '../../operations/up.ts';
import { loadLastSpec } from '../load-last-spec.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { formatMs } from '../view/plain.ts';
import { describeUp, formatUp, settleMountEvents, upWithContext } from './up.ts';

export type RestartFlags = { readonly component?: string };

type Operation = (
  request: PowerRequest,
  ports: CommandContext['ports'],
  emit: CommandContext['emit'],
) => Promise<PowerResult>;

export function runStop(input: CommandInput<unknown>): Promise<number> {
  return runPower(input, { operation: stop, state: 'stopped', next: 'sandbar start brings it back' });
}

export function runPause(input: CommandInput<unknown>): Promise<number> {
  return runPower(input, { operation: pause, state: 'paused', next: 'sandbar resume lets it go on' });
}

export function runResume(input: CommandInput<unknown>): Promise<number> {
  return runPower(input, { operation: resume, state: 'running', settlesMounts: true });
}

export function runRestart(input: CommandInput<RestartFlags>): Promise<number> {
  const { component } = input.flags;
  const operation: Operation = (request, ports, emit) => restart({ ...request, component }, ports, emit);
  return runPower(input, { operation, state: 'running', settlesMounts: true });
}

/** `up` with the file and the flags that it was given last. */
export function runStart(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async (context) => {
    const { cli, globals } = input;
    const { ports, emit } = context;
    const { clock, host } = ports;
    const startedAt = clock.now();
    const clusterName = await clusterNameOf(globals, cli.host);
    const result = await withClusterLock(clusterName, { host, emit, signal: cli.signal }, async () => {
      const loaded = await loadLastSpec(input, context);
      return upWithContext({ ...input, flags: {} }, { ...loaded, ...context }, converge);
    });
    return { result: describeUp(result), text: formatUp(result, clock.now() - startedAt) };
  });
}

function runPower(
  { cli, globals, ...input }: CommandInput<unknown>,
  verb: {
    readonly operation: Operation;
    readonly state: 'stopped' | 'paused' | 'running';
    readonly next?: string;
    readonly settlesMounts?: boolean;
  },
): Promise<number> {
  return runCommand({ cli, globals, ...input }, async ({ ports, emit }) => {
    const startedAt = ports.clock.now();
    const clusterName = await clusterNameOf(globals, cli.host);
    const request = { clusterName, timeoutMs: globals.timeout, signal: cli.signal };
    const { steps } = await verb.operation(request, ports, emit);
    if (verb.settlesMounts === true && steps.length > 0) {
      const { api } = await accessCluster(ports.runtime, clusterName);
      await settleMountEvents({ clusterName, access: api }, cli, { ports, emit });
    }
    const headline =
      steps.length === 0
        ? `cluster ${clusterName} is ${verb.state} already`
        : `cluster ${clusterName} is ${verb.state} (${formatMs(ports.clock.now() - startedAt)})`;
    const lines = [headline, ...(verb.next === undefined ? [] : [`  ${verb.next}`])];
    return { result: { cluster: clusterName, state: verb.state, steps }, text: lines.join('\n') };
  });
}
