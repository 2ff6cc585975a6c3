/** Commands that belong together, such as all of `sandbar port`. */
import { Argument, Option, type Command } from 'commander';
import { COMPONENTS } from '../model/names.ts';
import { RUNTIME_IMAGES } from '../model/images.ts';
import { DEFAULT_KUBERNETES, KUBERNETES_VERSIONS } from '../model/versions.ts';
import { repeated } from './option-values.ts';
import type { CommandInput } from './run-command.ts';

/** A command below another, explained. */
export type Add = (parent: Command, name: string, description: string, examples?: readonly string[]) => Command;
/** The action of a command: loads its code, hands over what was given, and passes its exit code on. */
export type Run = <Flags>(
  load: () => Promise<(input: CommandInput<Flags>) => Promise<number>>,
  flagsOf?: (args: unknown[]) => Partial<Flags>,
) => (...args: unknown[]) => Promise<void>;

/** `reset`. */
export function addResetCommand(program: Command, add: Add, run: Run): void {
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

/** What stands below `snapshot`. */
export function addSnapshotCommands(snapshot: Command, add: Add, run: Run): void {
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

/** `stop`, `start`, `pause`, `resume` and `restart`. */
export function addPowerCommands(program: Command, add: Add, run: Run): void {
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

/** `doctor` and `support-bundle`. */
export function addDiagnosisCommands(program: Command, add: Add, run: Run): void {
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

/** `mount`, `unmount` and `mounts`; `relay`, which starts by itself. */
export function addMountCommands(program: Command, add: Add, run: Run): void {
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

/** What stands below `port`. */
export function addPortCommands(port: Command, add: Add, run: Run): void {
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

/** What stands below `image`. */
export function addImageCommands(image: Command, add: Add, run: Run): void {
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

/** `registry` and what stands below it. */
export function addRegistryCommands(program: Command, add: Add, run: Run): void {
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

/** What stands below `bucket`. */
export function addBucketCommands(bucket: Command, add: Add, run: Run): void {
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
