import { down } from '../../operations/down.ts';
import { removeKubeconfigEntry } from '../../operations/kubeconfig.ts';
import { contextName } from '../../model/names.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';

export type DownFlags = { readonly volumes?: boolean };

export function runDown(input: CommandInput<DownFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit, confirm }) => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    const includesVolumes = flags.volumes === true;
    const result = await down({ clusterName, includesVolumes, confirm, signal: cli.signal }, ports, emit);
    await removeKubeconfigEntry(cli.host, contextName(clusterName));
    return { result, text: formatDown(result) };
  });
}

function formatDown({ clusterName, removed, kept }: Awaited<ReturnType<typeof down>>): string {
  const headline = removed.length === 0 ? `cluster ${clusterName} is not there` : `cluster ${clusterName} is down`;
  if (kept.length === 0) return headline;
  return [
    `${headline}; its data are kept (${String(kept.length)} volumes)`,
    '  sandbar up brings it back, sandbar down --volumes removes them',
  ].join('\n');
}
