/** The table of commands. Each one's code is loaded when it is called, so that `--help` and completion are quick. */
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { CONFIG_FLAGS, type ConfigFlags } from '../config/flags.ts';
import { COMPONENTS } from '../model/names.ts';
import { RUNTIME_IMAGES } from '../model/images.ts';
import { DEFAULT_KUBERNETES, KUBERNETES_VERSIONS } from '../model/versions.ts';
import { completionScript, SHELLS } from './completion.ts';
import { OUTPUT_FORMATS, type CliDependencies, type GlobalOptions } from './context.ts';
import type { CommandInput } from './run-command.ts';

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
  const run =
    <Flags>(
      load: () => Promise<(input: CommandInput<Flags>) => Promise<number>>,
      flagsOf?: (args: unknown[]) => Partial<Flags>,
    ) =>
    async (...args: unknown[]): Promise<void> => {
      const command = args.at(-1) as Command;
      const globals: GlobalOptions = { output: 'text', ...optionsOf(command) };
      const flags = { ...globals, ...(flagsOf?.(args) ?? {}) } as Flags;
      const start = await load();
      onExit(await start({ cli, globals, flags }));
    };
  const add = (parent: Command, name: string, description: string, examples: readonly string[] = []): Command => {
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

type Add = (parent: Command, name: string, description: string, examples?: readonly string[]) => Command;
type Run = <Flags>(
  load: () => Promise<(input: CommandInput<Flags>) => Promise<number>>,
  flagsOf?: (args: unknown[]) => Partial<Flags>,
) => (...args: unknown[]) => Promise<void>;

function addResetCommand(program: Command, add: Add, run: Run): void {
  add(program, 'reset', 'bring the cluster back to what it was after up, keeping images and containers', [
    'sandbar reset',
    'sandbar reset --keep volumes,buckets --yes',
    'sandbar reset --keep namespace/shop',
  ])
    .addOption(
      new Option(
        '--keep <list>',
        'volumes, buckets, mounts, ports, namespace/NAME, separated by commas; repeatable',
      ).argParser(repeated),
    )
    .option('--hard', 'start the control plane over, also where its datastore cannot be read')
    .action(run(async () => (await import('./commands/reset.ts')).runReset));
}

function addSnapshotCommands(snapshot: Command, add: Add, run: Run): void {
  const named = ([name]: unknown[]): { snapshot: string } => ({ snapshot: name as string });
  add(snapshot, 'create', 'keep what the cluster holds now')
    .argument('[name]', 'how it is called (default: the time)')
    .action(
      run(
        async () => (await import('./commands/snapshot.ts')).runSnapshotCreate,
        ([name]) => (name === undefined ? {} : { snapshot: name as string }),
      ),
    );
  add(snapshot, 'ls', 'list snapshots').action(
    run(async () => (await import('./commands/snapshot.ts')).runSnapshotList),
  );
  add(snapshot, 'restore', 'put a snapshot in place of what the cluster holds now')
    .argument('<name>')
    .action(run(async () => (await import('./commands/snapshot.ts')).runSnapshotRestore, named));
  add(snapshot, 'rm', 'remove snapshots')
    .argument('<names...>')
    .action(
      run(
        async () => (await import('./commands/snapshot.ts')).runSnapshotRemove,
        ([names]) => ({ snapshots: names as string[] }),
      ),
    );
  add(snapshot, 'export', 'write a snapshot into one file, for another machine', [
    'sandbar snapshot export before-upgrade shop.tar.gz',
  ])
    .argument('<name>')
    .argument('<file>', 'a .tar.gz, or - for standard output')
    .option('--force', 'replace a file that is there')
    .action(
      run(
        async () => (await import('./commands/snapshot.ts')).runSnapshotExport,
        ([name, path]) => ({ snapshot: name as string, path: path as string }),
      ),
    );
  add(snapshot, 'import', 'take a snapshot over from a file, into the cluster of the same name')
    .argument('<file>')
    .argument('[name]', 'how it is called here (default: as it was)')
    .action(
      run(
        async () => (await import('./commands/snapshot.ts')).runSnapshotImport,
        ([path, name]) => ({ path: path as string, ...(name === undefined ? {} : { snapshot: name as string }) }),
      ),
    );
}

function addPowerCommands(program: Command, add: Add, run: Run): void {
  add(program, 'stop', 'end all containers; objects, volumes, buckets and mounts are there again after start', [
    'sandbar stop',
  ]).action(run(async () => (await import('./commands/power.ts')).runStop));
  add(program, 'start', 'bring a stopped cluster back, with the file and the flags that up was given last', [
    'sandbar start',
    'sandbar start --name shop',
  ]).action(run(async () => (await import('./commands/power.ts')).runStart));
  add(program, 'pause', 'freeze all containers: they stay in memory and use no processor', ['sandbar pause']).action(
    run(async () => (await import('./commands/power.ts')).runPause),
  );
  add(program, 'resume', 'let a paused cluster go on', ['sandbar resume']).action(
    run(async () => (await import('./commands/power.ts')).runResume),
  );
  add(program, 'restart', 'end and start the containers of a component, or of all, and wait until they answer', [
    'sandbar restart',
    'sandbar restart control-plane',
  ])
    .addArgument(new Argument('[component]', 'one component').choices([...COMPONENTS, 'mounts']))
    .action(
      run(
        async () => (await import('./commands/power.ts')).runRestart,
        ([component]) => (component === undefined ? {} : { component: component as string }),
      ),
    );
}

function addDiagnosisCommands(program: Command, add: Add, run: Run): void {
  add(program, 'doctor', 'look for everything that is wrong, with the cause and the fix of each', [
    'sandbar doctor',
    'sandbar doctor --fix',
    'sandbar doctor -o json',
  ])
    .option('--fix', 'mend what can be mended without losing anything')
    .option('--verbose', 'tell of what is fine too')
    .action(run(async () => (await import('./commands/doctor.ts')).runDoctor));

  add(
    program,
    'support-bundle',
    'write versions, logs, events and findings into one file; secrets that are known are out, others by their form only',
    ['sandbar support-bundle', 'sandbar support-bundle /tmp/for-support.tar.gz'],
  )
    .argument('[file]', 'a new file (default: sandbar-CLUSTER-DATE.tar.gz here)')
    .action(
      run(
        async () => (await import('./commands/support-bundle.ts')).runSupportBundle,
        ([file]) => (file === undefined ? {} : { bundleFile: file as string }),
      ),
    );
}

function addMountCommands(program: Command, add: Add, run: Run): void {
  const namespace = '-n, --namespace <namespace>';
  add(program, 'mount', 'mount a folder or a file of this machine into a workload that runs, live and two-way', [
    'sandbar mount ./src deployment/web:/app/src',
    'sandbar mount . deployment/web:/app --exclude node_modules --save',
    'sandbar mount ./nginx.conf web/deployment/proxy/nginx:/etc/nginx/nginx.conf --read-only',
    'sandbar mount ./data',
  ])
    .argument('<source>', 'a folder or a file')
    .argument('[target]', 'KIND/NAME[/CONTAINER]:PATH; without it, print a path for a hostPath volume')
    .option('--read-only', 'pods may not write')
    .addOption(
      new Option('--exclude <path>', "a path below that keeps the image's own content; repeatable").argParser(repeated),
    )
    .option(namespace, "the workload's namespace (default: default)")
    .option('--allow-sensitive', 'mount a folder that holds credentials')
    .option('--save', 'write the mount into sandbar.yaml too')
    .action(
      run(
        async () => (await import('./commands/mount.ts')).runMount,
        ([source, target]) => ({
          source: source as string,
          ...(target === undefined ? {} : { target: target as string }),
        }),
      ),
    );

  add(program, 'unmount', 'take mounts away; what is in the folders stays', [
    'sandbar unmount deployment/web:/app/src',
    'sandbar unmount ./src',
    'sandbar unmount --all',
  ])
    .argument('[mounts...]', 'each a KIND/NAME:PATH, a source or an id of sandbar mounts')
    .option(namespace, "the workloads' namespace (default: default)")
    .option('--all', 'every mount of the cluster')
    .action(
      run(
        async () => (await import('./commands/mount.ts')).runUnmount,
        ([mounts]) => ({ mounts: mounts as string[] }),
      ),
    );

  add(program, 'mounts', 'list what is mounted where, and how it does', ['sandbar mounts', 'sandbar mounts -o json'])
    .option(namespace, 'those of one namespace only')
    .action(run(async () => (await import('./commands/mount.ts')).runMounts));

  program
    .command('relay', { hidden: true })
    .description('send file events of mounted folders to the node, as long as a mount needs it; started by itself')
    .action(run(async () => (await import('./commands/relay.ts')).runRelay));
}

function addPortCommands(port: Command, add: Add, run: Run): void {
  const namespace = '-n, --namespace <namespace>';
  add(port, 'add', 'publish a port on 127.0.0.1; it outlives pods, restarts of the engine, and this command', [
    'sandbar port add 8080 service/web:80',
    'sandbar port add 127.0.0.1:5432 statefulset/db:postgres -n shop',
    'sandbar port add 5353 service/dns:53/udp',
  ])
    .argument('<port>', '[127.0.0.1:]PORT of this machine, or all of it: 8080:service/web:80')
    .argument('[target]', '[NAMESPACE/]KIND/NAME:PORT[/udp]; the port by its number or its name')
    .option(namespace, "the target's namespace (default: default)")
    .action(
      run(
        async () => (await import('./commands/port.ts')).runPortAdd,
        ([wanted, target]) => ({
          port: wanted as string,
          ...(target === undefined ? {} : { target: target as string }),
        }),
      ),
    );
  add(port, 'ls', 'list the ports, those of Services of type LoadBalancer among them', [
    'sandbar port ls',
    'sandbar port ls -o json',
  ])
    .option(namespace, 'those of one namespace only')
    .action(run(async () => (await import('./commands/port.ts')).runPortList));
  add(port, 'rm', 'close published ports, with the connections through them', [
    'sandbar port rm 8080 5353/udp',
    'sandbar port rm --all',
  ])
    .argument('[ports...]', 'each a PORT or PORT/udp')
    .option('--all', 'every one that was published; those of LoadBalancer Services stay')
    .action(
      run(
        async () => (await import('./commands/port.ts')).runPortRemove,
        ([chosen]) => ({ chosen: chosen as string[] }),
      ),
    );
}

function addImageCommands(image: Command, add: Add, run: Run): void {
  const kubernetesOption = (): Option =>
    new Option('--kubernetes <minor>', `for clusters of this version (default: ${DEFAULT_KUBERNETES})`).choices(
      Object.keys(KUBERNETES_VERSIONS),
    );
  add(image, 'load', 'put images of the Docker engine into the cluster; only layers that it lacks are sent', [
    'sandbar image load shop:dev',
  ])
    .argument('<images...>', 'names in the Docker engine')
    .option('--platform <platform>', 'of an image with several, e.g. linux/arm64')
    .action(
      run(
        async () => (await import('./commands/image.ts')).runImageLoad,
        ([images]) => ({ images: images as string[] }),
      ),
    );
  add(image, 'build', "build Sandbar's own images that are missing", [
    'sandbar image build',
    'sandbar image build --kubernetes 1.35',
  ])
    .addArgument(new Argument('[images...]', 'all of them otherwise').choices(RUNTIME_IMAGES))
    .addOption(kubernetesOption())
    .action(
      run(
        async () => (await import('./commands/image.ts')).runImageBuild,
        ([images]) => ({ images: images as string[] }),
      ),
    );
  add(image, 'ls', "list Sandbar's own images")
    .addOption(kubernetesOption())
    .action(run(async () => (await import('./commands/image.ts')).runImageList));
  add(image, 'publish', "push Sandbar's own images to a repository, so that a team builds them once", [
    'sandbar image publish registry.example/team/sandbar',
  ])
    .argument('<repository>', 'where to, without a tag')
    .addOption(kubernetesOption())
    .action(
      run(
        async () => (await import('./commands/image.ts')).runImagePublish,
        ([repository]) => ({ repository: repository as string }),
      ),
    );
}

function addRegistryCommands(program: Command, add: Add, run: Run): void {
  const registry = add(program, 'registry', 'the registry that all clusters share: where it is, and what it holds', [
    'sandbar registry',
    'docker push localhost:5001/shop:dev',
    'sandbar registry prune',
  ]).action(run(async () => (await import('./commands/registry.ts')).runRegistry));
  add(registry, 'prune', 'free what no tag leads to any more')
    .option('--caches', "every copy of other registries' images instead")
    .action(run(async () => (await import('./commands/registry.ts')).runRegistryPrune));
  add(registry, 'rm', 'remove the registry with every image in it, for all clusters').action(
    run(async () => (await import('./commands/registry.ts')).runRegistryRemove),
  );
}

function addBucketCommands(bucket: Command, add: Add, run: Run): void {
  const bucketsOf = ([buckets]: unknown[]): { buckets: string[] } => ({ buckets: buckets as string[] });
  add(bucket, 'ls', 'list buckets').action(run(async () => (await import('./commands/bucket.ts')).runBucketList));
  add(bucket, 'create', 'create buckets; those that are there stay as they are')
    .argument('<buckets...>')
    .option('--versioning', 'keep every version of every object')
    .action(run(async () => (await import('./commands/bucket.ts')).runBucketCreate, bucketsOf));
  add(bucket, 'rm', 'remove buckets')
    .argument('<buckets...>')
    .option('--force', 'remove their objects too')
    .action(run(async () => (await import('./commands/bucket.ts')).runBucketRemove, bucketsOf));
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

/** Of an option that may be given several times. */
function repeated(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number`);
  return Number(text);
}

/** Seconds, with or without the unit, as milliseconds. */
function seconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(s|m)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError(`"${text}" is not a duration such as 90, 90s or 2m`);
  return Number(match[1]) * (match[2] === 'm' ? 60_000 : 1000);
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
