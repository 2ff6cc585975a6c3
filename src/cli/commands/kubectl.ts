import { prepareKubectl } from '../../operations/kubectl.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';

export type KubectlFlags = { readonly args: readonly string[] };

/** Everything after `kubectl` goes to kubectl as it is: files, stdin, port-forward and plugins are the host's. */
export function runKubectl(input: CommandInput<KubectlFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    const repository = cli.host.env['SANDBAR_IMAGE_REPOSITORY'];
    const { kubectl, kubeconfig } = await prepareKubectl(ports, clusterName, emit, {
      repository,
      signal: cli.signal,
    });
    const exitCode = await cli.runProgram(kubectl, flags.args, { env: { KUBECONFIG: kubeconfig } });
    return { result: undefined, text: '', exitCode };
  });
}
