import { formatKubeconfig } from '../../model/kubeconfig.ts';
import { contextName } from '../../model/names.ts';
import { accessCluster } from '../../operations/access.ts';
import { addKubeconfigEntry } from '../../operations/kubeconfig.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';

export type KubeconfigFlags = { readonly merge?: boolean };

/** Prints a kubeconfig for this cluster alone; with `--merge` it goes into the user's own file instead. */
export function runKubeconfig(input: CommandInput<KubeconfigFlags>): Promise<number> {
  return runCommand(input, async ({ ports }) => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    const { api } = await accessCluster(ports.runtime, clusterName);
    const name = contextName(clusterName);
    if (flags.merge !== true) {
      const kubeconfig = formatKubeconfig(api, name);
      return { result: { context: name, kubeconfig }, text: kubeconfig.trimEnd() };
    }
    const path = await addKubeconfigEntry(cli.host, { name, access: api });
    return { result: { context: name, path }, text: `context ${name} is in ${path}` };
  });
}
