import { list, status, type ClusterListing, type ClusterStatus } from '../../operations/status.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';
import { paint, type Terminal } from '../terminal.ts';
import { formatTable } from '../view/table.ts';
import { formatPlace } from './port.ts';

const NOT_READY = 1;

export function runStatus(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async ({ ports, terminal }) => {
    const result = await status(await clusterNameOf(input.globals, input.cli.host), ports, input.cli.signal);
    return { result, text: formatStatus(result, terminal), exitCode: result.isReady ? 0 : NOT_READY };
  });
}

export function runList(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async ({ ports }) => {
    const result = await list(ports.runtime);
    return { result, text: formatList(result) };
  });
}

function formatStatus(result: ClusterStatus, terminal: Terminal): string {
  const rows = result.components.map((component) => [
    `${component.isReady ? paint('✔', 'green', terminal) : paint('✖', 'red', terminal)} ${component.component}`,
    component.detail,
  ]);
  const places = [
    ['kubectl context', result.context],
    ['API server', result.apiServer],
    ['ingress', result.ingress],
    ['with TLS', result.ingressTls && `${result.ingressTls} (${describeTrust(result)})`],
    ['object store', result.objectStore],
    ['its console', result.objectStoreConsole],
    ['registry', result.registry],
    ...result.ports.map(formatPlace),
  ].filter((place): place is [string, string] => place[1] !== undefined);
  const headline = `cluster ${result.name} is ${describeState(result)}`;
  return [headline, formatTable(rows), '', formatTable(places)].join('\n');
}

function describeTrust({ trust }: ClusterStatus): string {
  if (trust.length === 0) return 'sandbar knows no store of certificates here';
  const missing = trust
    .filter(({ isTrusted }) => !isTrusted)
    .map(({ kind, place }) => (kind === 'system' ? kind : place));
  return missing.length === 0 ? 'trusted by this machine' : `not trusted by ${missing.join(', ')}: sandbar trust`;
}

function describeState({ isReady, state }: ClusterStatus): string {
  if (isReady) return 'ready';
  if (state === 'paused') return 'paused: sandbar resume lets it go on';
  return state === 'stopped' ? 'stopped: sandbar start brings it back' : 'not ready: sandbar up repairs it';
}

function formatList(clusters: readonly ClusterListing[]): string {
  if (clusters.length === 0) return 'no clusters: sandbar up makes one';
  return formatTable([
    ['NAME', 'STATE', 'API SERVER'],
    ...clusters.map((cluster) => [cluster.name, cluster.state, cluster.apiServer ?? '-']),
  ]);
}
