/** The table of commands. Each one's code is loaded when it is called, so that `--help` and completion are quick. */
import { Argument, Command, CommanderError, Option } from 'commander';
import { CONFIG_FLAGS, type ConfigFlags } from '../config/flags.ts';
import { COMPONENTS } from '../model/names.ts';
import {
  addBucketCommands,
  addDiagnosisCommands,
  addImageCommands,
  addMountCommands,
  addPortCommands,
  addPowerCommands,
  addRegistryCommands,
  addResetCommand,
  addSnapshotCommands,
  type Add,
  type Run,
} from './command-groups.ts';
import { completionScript, SHELLS } from './completion.ts';
import { OUTPUT_FORMATS, type CliDependencies, type GlobalOptions } from './context.ts';
import { repeated, seconds, wholeNumber } from './option-values.ts';

const USAGE_EXIT_CODE = 2;

/** Parses `argv` (without node and script) and runs the command; returns the exit code. */
export async function runProgram(argv: readonly string[], cli: CliDependencies): Promise<number> {
  const outcome = { exitCode: 0 };
  const program = buildProgram(cli, (exitCode) => (outcome.exitCode = exitCode));
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return outcome.exitCode;
  } catch (error) {
    // commander has printed what was wrong; help and version end with 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_EXIT_CODE;
    throw error;
  }
}

export function buildProgram(cli: CliDependencies, onExit: (exitCode: number) => void): Command {
  const program = new Command('sandbar')
    .description('A sandbox Kubernetes cluster for one developer: real, up in seconds, with DNS, ingress and S3')
    .version(cli.version, '--version', 'print the version of sandbar')
    .helpOption('-h, --help', 'explain a command')
    .helpCommand('help [command]', 'explain a command')
    .exitOverride()
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .showHelpAfterError('  fix: --help explains every command and option')
    .configureOutput({
      writeOut: (text) => cli.terminal.stdout.write(text),
      writeErr: (text) => cli.terminal.stderr.write(text),
      outputError: (text, write) => {
        write(text.replace(/^error: /, '✖ '));
      },
    })
    .addHelpText('after', EXAMPLES);

  /** A command whose action hands over to a lazily loaded function. */
  const run: Run =
    (load, flagsOf) =>
    async (...args) => {
      const command = args.at(-1) as Command;
      const globals: GlobalOptions = { output: 'text', ...optionsOf(command) };
      const start = await load();
      onExit(await start({ cli, globals, flags: { ...globals, ...(flagsOf?.(args) ?? {}) } as never }));
    };
  const add: Add = (parent, name, description, examples = []) => {
    const command = parent.command(name).description(description);
    if (examples.length > 0)
      command.addHelpText('after', `\nExamples:\n${examples.map((line) => `  $ ${line}`).join('\n')}`);
    return command;
  };

  const up = add(program, 'up', 'make the cluster what sandbar.yaml and the flags say; repairs what is not so', [
    'sandbar up',
    'sandbar up --dry-run',
    'sandbar up --name shop --http-port 8080 --bucket pictures',
  ])
    .option('--dry-run', 'print what would change, change nothing')
    .option('--image-repository <repository>', 'pull missing images from here before building them');
  for (const [key, flag] of Object.entries(CONFIG_FLAGS) as [
    keyof ConfigFlags,
    (typeof CONFIG_FLAGS)[keyof ConfigFlags],
  ][]) {
    if (key === 'name' || key === 'file') continue;
    const option = new Option(flag.syntax, flag.description);
    up.addOption(flag.isRepeatable === true ? option.argParser(repeated) : option);
  }
  up.action(run(async () => (await import('./commands/up.ts')).runUp));

  add(program, 'quickstart', 'bring up a cluster with the example app on it, and all that is needed for that', [
    'sandbar quickstart',
  ])
    .option('--prepare', 'an engine and the images only')
    .action(run(async () => (await import('./commands/quickstart.ts')).runQuickstart));

  add(program, 'down', 'remove the containers and the network; keeps the data unless --volumes is given', [
    'sandbar down',
    'sandbar down --volumes --yes',
  ])
    .option('--volumes', 'remove the data too: objects, images, claims, buckets')
    .action(run(async () => (await import('./commands/down.ts')).runDown));

  addPowerCommands(program, add, run);

  add(program, 'status', 'ask every part of the cluster whether it does its work', [
    'sandbar status',
    'sandbar status -o json',
  ]).action(run(async () => (await import('./commands/status.ts')).runStatus));

  addDiagnosisCommands(program, add, run);

  add(program, 'list', 'list all clusters of this Docker engine').action(
    run(async () => (await import('./commands/status.ts')).runList),
  );

  addResetCommand(program, add, run);
  addSnapshotCommands(
    add(program, 'snapshot', 'what the cluster holds at one moment: objects, claims and buckets', [
      'sandbar snapshot create before-upgrade',
      'sandbar snapshot restore before-upgrade',
    ]),
    add,
    run,
  );
  addMountCommands(program, add, run);
  addPortCommands(
    add(program, 'port', 'ports of this machine that lead to Services, workloads and pods', [
      'sandbar port add 8080 service/web:80',
      'sandbar port ls',
    ]),
    add,
    run,
  );

  add(program, 'logs', 'print what the components say', [
    'sandbar logs',
    'sandbar logs agent --follow --tail 50',
    'sandbar logs audit --tail 20',
  ])
    .addArgument(new Argument('[component]', 'one component, or the audit log').choices([...COMPONENTS, 'audit']))
    .option('-f, --follow', 'go on as lines come')
    .option('--tail <lines>', 'the last lines only', wholeNumber)
    .option('--since <time>', 'since a time, or a duration such as 10m')
    .action(
      run(
        async () => (await import('./commands/logs.ts')).runLogs,
        ([component]) => (component === undefined ? {} : { component: component as string }),
      ),
    );

  program
    .command('kubectl')
    .description("run the cluster's own version of kubectl; everything after it is kubectl's")
    .argument('[args...]')
    .helpOption(false)
    .allowUnknownOption()
    .passThroughOptions()
    .action(
      run(
        async () => (await import('./commands/kubectl.ts')).runKubectl,
        ([args]) => ({ args: args as string[] }),
      ),
    );

  add(program, 'kubeconfig', 'print a kubeconfig for this cluster alone, or merge it into your own', [
    'sandbar kubeconfig > dev.yaml',
    'sandbar kubeconfig --merge',
  ])
    .option('--merge', 'write the context into your kubeconfig, as up does')
    .action(run(async () => (await import('./commands/kubeconfig.ts')).runKubeconfig));

  addImageCommands(add(program, 'image', 'images of the cluster, and images for your apps'), add, run);
  addRegistryCommands(program, add, run);
  addBucketCommands(add(program, 'bucket', "buckets in the cluster's object store"), add, run);

  add(program, 'env', "print exports for your shell: the object store's endpoint and keys", ['eval "$(sandbar env)"'])
    .addOption(new Option('--shell <shell>', 'the syntax of this shell').choices(['sh', 'fish', 'powershell']))
    .action(run(async () => (await import('./commands/bucket.ts')).runEnv));

  add(program, 'trust', "make this machine accept the ingress' certificates of names below localhost", [
    'sandbar trust',
    'sandbar trust --remove',
    'NODE_EXTRA_CA_CERTS="$(sandbar trust --print)" node app.js',
  ])
    .option('--remove', 'take that back')
    .option('--print', "only print the path of the root's certificate, for clients with a list of their own")
    .action(run(async () => (await import('./commands/trust.ts')).runTrust));

  const config = add(program, 'config', 'sandbar.yaml: check it, or print its JSON schema');
  add(config, 'validate', 'say everything that is wrong with sandbar.yaml').action(
    run(async () => (await import('./commands/config.ts')).runConfigValidate),
  );
  add(config, 'schema', 'print the JSON schema of sandbar.yaml').action(
    run(async () => (await import('./commands/config.ts')).runConfigSchema),
  );

  program
    .command('completion')
    .description('print a completion script for your shell')
    .addArgument(new Argument('<shell>', 'your shell').choices(SHELLS))
    .addHelpText(
      'after',
      '\nExamples:\n  $ source <(sandbar completion bash)\n  $ sandbar completion fish > ~/.config/fish/completions/sandbar.fish',
    )
    .action((shell: (typeof SHELLS)[number]) => {
      cli.terminal.stdout.write(completionScript(shell, program));
    });

  add(program, 'version', 'print the versions of sandbar and of the parts of a cluster').action(
    run(async () => (await import('./commands/version.ts')).runVersion),
  );
  addGlobalOptions(program);
  return program;
}

/** Of the program and of every command below, after those of its own; what follows `kubectl` is not ours to read. */
function addGlobalOptions(command: Command): void {
  if (TAKES_NO_OPTIONS.includes(command.name())) return;
  command
    .optionsGroup(command.parent === null ? 'Options:' : 'Options of every command:')
    .option('--name <name>', 'the cluster (default: SANDBAR_NAME, sandbar.yaml, or dev)')
    .option('--file <path>', 'configuration (default: sandbar.yaml here or above)')
    .addOption(new Option('-o, --output <format>', 'what to print (default: text)').choices(OUTPUT_FORMATS))
    .option('-q, --quiet', 'no progress, only results and errors')
    .option('-y, --yes', 'agree to everything that would be asked')
    .option('--timeout <seconds>', 'how long to wait for each part', seconds)
    .option('--debug', 'print stacks with errors');
  for (const sub of command.commands) addGlobalOptions(sub);
}

const TAKES_NO_OPTIONS = ['kubectl', 'completion'];

/** Options of a command and of those above it; what stands nearer to the end of the line wins. */
function optionsOf(command: Command): Partial<GlobalOptions> {
  return { ...(command.parent === null ? {} : optionsOf(command.parent)), ...command.opts() };
}

const EXAMPLES = `
Examples:
  $ sandbar up                          a cluster, in seconds
  $ sandbar kubectl get pods -A         the cluster's own kubectl
  $ sandbar mount ./src deployment/web:/app/src
                                        your source, live in its pods
  $ sandbar image load shop:dev         an image you built, into the cluster
  $ eval "$(sandbar env)"               S3 endpoint and keys for your shell
  $ sandbar down --volumes              all of it gone again`;
