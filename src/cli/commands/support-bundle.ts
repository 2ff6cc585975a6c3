import { resolve } from 'node:path';
import { loadConfig } from '../../config/load.ts';
import type { Foreseen } from '../../diagnosis/diagnose.ts';
import { COMPONENT_VERSIONS } from '../../model/versions.ts';
import { LABELS } from '../../model/names.ts';
import { readLastUp } from '../../operations/last-up.ts';
import { writeSupportBundle, type SupportBundle } from '../../operations/support-bundle.ts';
import { foreseeUp } from '../foresee-up.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';
import { paint, type Terminal } from '../terminal.ts';
import { describe, diagnoseCluster } from './doctor.ts';

export type SupportBundleFlags = { readonly bundleFile?: string };

export function runSupportBundle(input: CommandInput<SupportBundleFlags>): Promise<number> {
  return runCommand(input, async ({ ports, terminal }) => {
    const { cli, globals, flags } = input;
    const { host } = cli;
    const clusterName = await clusterNameOf(globals, host);
    const day = new Date(ports.clock.now())
      .toISOString()
      .replace(/[-:]|\.\d+Z$/g, '')
      .replace('T', '-');
    const file = resolve(host.workingDirectory, flags.bundleFile ?? `sandbar-${clusterName}-${day}.tar.gz`);
    const containers = await ports.runtime.listContainers({ key: LABELS.cluster, value: clusterName });
    const hasCluster = containers.length > 0;
    const foreseen: Promise<Foreseen> = foreseeUp(input, { ports, hasCluster });
    foreseen.catch(() => undefined);
    const result = await writeSupportBundle(
      {
        clusterName,
        file,
        versions: { sandbar: cli.version, ...COMPONENT_VERSIONS },
        diagnose: async () => describe(await diagnoseCluster(input, clusterName, () => Promise.resolve(ports))),
        plan: () => foreseen,
        readConfig: async () => {
          const last = await readLastUp(ports.runtime, clusterName).catch(() => undefined);
          const named = globals.file ?? last?.file;
          // A file with mistakes in it is the one to look at.
          const { file: configFile } = await loadConfig(host, typeof named === 'string' ? { file: named } : {});
          return configFile === undefined ? undefined : host.readFile(configFile);
        },
      },
      ports,
    );
    return { result, text: formatBundle(result, terminal) };
  });
}

function formatBundle({ file, sizeBytes, contents, missing }: SupportBundle, terminal: Terminal): string {
  const size = `${String(Math.ceil(sizeBytes / 1024))} KiB`;
  return [
    `${paint('✔', 'green', terminal)} wrote ${file} (${String(contents.length)} files, ${size})`,
    '  versions, what doctor says, logs, events and objects; no secrets: look into it before you send it',
    ...missing.map(({ what, reason }) => `${paint('!', 'yellow', terminal)} without ${what}: ${reason}`),
  ].join('\n');
}
