import { parseHostPort, parsePublished } from '../../config/publish-syntax.ts';
import type { SyntaxProblem } from '../../config/mount-syntax.ts';
import { SandbarError } from '../../model/errors.ts';
import { formatHostPort, formatTarget, type PortRecord } from '../../model/published.ts';
import { listPorts, type PortListing } from '../../operations/port-list.ts';
import { addPort, removePorts, type PortAdded } from '../../operations/ports.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';
import { paint, type Terminal } from '../terminal.ts';
import { formatTable } from '../view/table.ts';

export type PortAddFlags = { readonly port: string; readonly target?: string; readonly namespace?: string };

export type PortRemoveFlags = { readonly chosen: readonly string[]; readonly all?: boolean };

const DEFAULT_NAMESPACE = 'default';

export function runPortAdd(input: CommandInput<PortAddFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { cli, globals, flags } = input;
    const { port, target, namespace = DEFAULT_NAMESPACE } = flags;
    const published = required(parsePublished(target === undefined ? port : `${port}:${target}`, { namespace }));
    const added = await addPort(
      {
        clusterName: await clusterNameOf(globals, cli.host),
        published,
        timeoutMs: globals.timeout,
        signal: cli.signal,
      },
      { ports, emit },
    );
    return { result: { ...describeRecord(added.record), change: added.change }, text: formatAdded(added) };
  });
}

export function runPortRemove(input: CommandInput<PortRemoveFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { cli, globals, flags } = input;
    if ((flags.all === true) === flags.chosen.length > 0) {
      throw new SandbarError('USAGE', flags.all === true ? '--all leaves nothing to name' : 'no port is named', {
        hint: 'name ports as sandbar port ls lists them, or say --all',
      });
    }
    const { removed } = await removePorts(
      {
        clusterName: await clusterNameOf(globals, cli.host),
        chosen: flags.all === true ? 'all' : flags.chosen.map((text) => required(parseHostPort(text))),
        timeoutMs: globals.timeout,
        signal: cli.signal,
      },
      { ports, emit },
    );
    return { result: { removed: removed.map(describeRecord) }, text: formatRemoved(removed) };
  });
}

export function runPortList(input: CommandInput<{ readonly namespace?: string }>): Promise<number> {
  return runCommand(input, async ({ ports, terminal }) => {
    const { cli, globals, flags } = input;
    const all = await listPorts(await clusterNameOf(globals, cli.host), ports);
    const listings = all.filter(({ namespace }) => flags.namespace === undefined || namespace === flags.namespace);
    return { result: listings, text: formatPorts(listings, terminal) };
  });
}

/** A line of `sandbar status` for each port. */
export function formatPlace({ hostPort, protocol, namespace, target, state, address }: PortListing): [string, string] {
  const place = namespace === DEFAULT_NAMESPACE ? target : `${namespace}/${target}`;
  const also = address === undefined ? '' : `, ${address}`;
  const what = state === 'open' ? '' : ` (${state})`;
  return [
    `port ${protocol === 'TCP' ? '' : protocol}`.trim(),
    `127.0.0.1:${String(hostPort)}${also} → ${place}${what}`,
  ];
}

function required<T extends object>(parsed: T | SyntaxProblem): T {
  if (!('problem' in parsed)) return parsed;
  const { problem, suggestion } = parsed;
  throw new SandbarError('USAGE', problem, suggestion === undefined ? {} : { hint: suggestion });
}

function describeRecord({ hostPort, protocol, target, origin }: PortRecord): object {
  const { namespace } = target;
  return { hostPort, protocol, namespace, target: formatTarget({ ...target, namespace: DEFAULT_NAMESPACE }), origin };
}

function formatAdded({ record, change }: PortAdded): string {
  const place = `127.0.0.1:${formatHostPort(record)}`;
  const target = formatTarget(record.target);
  switch (change) {
    case 'added':
      return `${place} leads to ${target}`;
    case 'replaced':
      return `${place} leads to ${target} from now on`;
    case 'unchanged':
      return `${place} leads to ${target} already: nothing was changed`;
  }
}

function formatRemoved(removed: readonly PortRecord[]): string {
  if (removed.length === 0) return 'no port is published: nothing was changed';
  const lines = removed.map((record) => `127.0.0.1:${formatHostPort(record)} is no longer published`);
  const isDeclared = removed.some(({ origin }) => origin === 'file');
  return [...lines, ...(isDeclared ? ['  what sandbar.yaml publishes comes back with the next up'] : [])].join('\n');
}

function formatPorts(listings: readonly PortListing[], terminal: Terminal): string {
  if (listings.length === 0) return 'no ports: sandbar port add 8080 service/NAME:80 publishes one';
  const rows = listings.map(({ hostPort, protocol, namespace, target, address, origin, state }) => [
    `127.0.0.1:${String(hostPort)}`,
    protocol,
    namespace,
    target,
    address ?? '-',
    origin,
    state === 'open' ? state : paint(state, 'red', terminal),
  ]);
  const details = listings
    .filter(({ state, detail }) => state !== 'open' && detail !== '')
    .map(({ hostPort, detail }) => `127.0.0.1:${String(hostPort)}: ${detail}`);
  const table = formatTable([['HOST', 'PROTOCOL', 'NAMESPACE', 'TARGET', 'ADDRESS', 'ORIGIN', 'STATE'], ...rows]);
  return [table, ...details].join('\n');
}
