/** Folders of the host in pods of a running cluster: live, both ways, with file events. */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, existsSync, watch } from 'node:fs';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, isDockerMissing, layerImage, provideTestImage } from '../fixtures/docker.ts';
import { git, makeRepository } from '../fixtures/repository.ts';
import { toolboxPod, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import {
  apply,
  countInPod,
  deploy,
  inPod,
  listMounts,
  listOf,
  mountContainers,
  podOf,
  podsOf,
  podTemplate,
  recordNames,
  untilRead,
  watchInPod,
  workload,
} from './mounts.ts';
import { COMPONENTS, createSandbox, eventually, SANDBAR, type RunResult } from './support.ts';

const isRoot = process.getuid?.() === 0;
const MIB = 2 ** 20;
const ODD_NAMES = [
  'ünï – çödé 文件',
  'with  spaces ',
  'a:b:c',
  'one,two;three',
  `"quoted" & 'so' $HOME \`x\``,
  '-dash',
  '100%',
];

describe.skipIf(isDockerMissing)('a live mount', () => {
  const sandbox = createSandbox('mounts');
  const path = (...names: readonly string[]): string => join(sandbox.directory, ...names);
  const write = async (file: string, text: string): Promise<void> => {
    await mkdir(dirname(path(file)), { recursive: true });
    await writeFile(path(file), text);
  };
  /** `sandbar mount`; what a person would see of it. */
  const mount = async (...args: readonly string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await sandbox.run(['mount', ...args]);
    expect(exitCode, stdout + stderr).toBe(0);
    return stdout + stderr;
  };
  const read = (pod: string, file: string): Promise<string> => inPod(sandbox, pod, ['cat', file]);
  const startTimes = (): Promise<readonly string[]> =>
    Promise.all(COMPONENTS.map(async (component) => (await sandbox.inspect(component)).State.StartedAt));

  beforeAll(async () => {
    const runtime = new DockerRuntime(environment);
    await provideTestImage(runtime);
    await runtime.close();
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    await deploy(sandbox, workload('Deployment', 'web'));
  });

  describe('of a workload that runs', () => {
    it('is attached without anything of the cluster being restarted; its pods are rolled once', async () => {
      await write('app/hello.txt', 'hello\n');
      const [containers, starts] = await Promise.all([sandbox.containerIds(), startTimes()]);
      const before = await podsOf(sandbox, 'web');
      expect(await mount('app', 'deployment/web:/app/src')).toContain('rolled once');
      const after = await podsOf(sandbox, 'web');
      expect(after).toHaveLength(1);
      expect(after[0]?.uid).not.toBe(before[0]?.uid);
      const { items } = await sandbox.getObject('replicasets', '-l', 'app=web');
      expect(items).toHaveLength(2);
      expect(await read('deployment/web', '/app/src/hello.txt')).toBe('hello\n');
      expect(await sandbox.containerIds()).toMatchObject(containers);
      expect(await startTimes()).toEqual(starts);
      expect(await listMounts(sandbox)).toMatchObject([
        { source: path('app'), target: '/app/src', workload: 'deployment/web', state: 'attached', events: 'native' },
      ]);
    });

    it('is left alone by the same command again', async () => {
      const before = await podsOf(sandbox, 'web');
      expect(await mount('app', 'deployment/web:/app/src')).not.toContain('rolled');
      expect(await podsOf(sandbox, 'web')).toEqual(before);
      expect(await mountContainers(sandbox)).toHaveLength(1);
    });

    it('shows edits both ways at once, with their file events', async () => {
      const pod = await podOf(sandbox, 'web');
      const inside = await watchInPod(sandbox, pod, '/app/src');
      await write('app/from-host.txt', 'one');
      await inside.until('from-host.txt');
      expect(await read(pod, '/app/src/from-host.txt')).toBe('one');
      await inside.stop();

      const names: string[] = [];
      const outside = watch(path('app'), (_event, name) => names.push(String(name)));
      await inPod(sandbox, pod, ['sh', '-c', 'printf two > /app/src/from-pod.txt && rm /app/src/from-host.txt']);
      expect(await readFile(path('app/from-pod.txt'), 'utf8')).toBe('two');
      expect(existsSync(path('app/from-host.txt'))).toBe(false);
      await eventually('both events', () =>
        Promise.resolve(['from-pod.txt', 'from-host.txt'].every((name) => names.includes(name)) || undefined),
      );
      outside.close();
    });

    it('has further mounts below it without a restart of any pod', async () => {
      const before = await podsOf(sandbox, 'web');
      await mkdir(path('app/vendor/lib'), { recursive: true });
      await write('lib/index.js', 'lib');
      await write('deeper/note.txt', 'deeper');
      expect(await mount('lib', 'deployment/web:/app/src/vendor/lib')).not.toContain('rolled');
      await mkdir(path('lib/deeper'));
      await mount('deeper', 'deployment/web:/app/src/vendor/lib/deeper');
      expect(await read('deployment/web', '/app/src/vendor/lib/index.js')).toBe('lib');
      expect(await read('deployment/web', '/app/src/vendor/lib/deeper/note.txt')).toBe('deeper');
      const inside = await watchInPod(sandbox, await podOf(sandbox, 'web'), '/app/src/vendor/lib/deeper');
      await write('deeper/new.txt', '');
      await inside.until('new.txt');
      await inside.stop();
      expect(await podsOf(sandbox, 'web')).toEqual(before);
      expect(await readdir(path('app/vendor/lib'))).toEqual([]);
    });

    it('takes another source while the pods run, and keeps what is mounted below', async () => {
      const before = await podsOf(sandbox, 'web');
      await write('app2/hello.txt', 'hello from another folder\n');
      await mkdir(path('app2/vendor/lib'), { recursive: true });
      expect(await mount('app2', 'deployment/web:/app/src')).not.toContain('rolled');
      expect(await read('deployment/web', '/app/src/hello.txt')).toBe('hello from another folder\n');
      await untilRead(sandbox, { pod: 'deployment/web', path: '/app/src/vendor/lib/index.js', text: 'lib' });
      await mount('app', 'deployment/web:/app/src');
      expect(await read('deployment/web', '/app/src/hello.txt')).toBe('hello\n');
      expect(await podsOf(sandbox, 'web')).toEqual(before);
    });

    it('is taken away without a restart where it lies below another one', async () => {
      const before = await podsOf(sandbox, 'web');
      await sandbox.must(['unmount', 'deployment/web:/app/src/vendor/lib/deeper']);
      await sandbox.must(['unmount', 'deployment/web:/app/src/vendor/lib']);
      expect(await inPod(sandbox, 'deployment/web', ['ls', '-A', '/app/src/vendor/lib'])).toBe('');
      expect(await podsOf(sandbox, 'web')).toEqual(before);
      expect(await readFile(path('lib/index.js'), 'utf8')).toBe('lib');
    });

    it('may be read-only', async () => {
      await mkdir(path('app/fixed'), { recursive: true });
      await write('fixed/file.txt', 'one');
      await mount('fixed', 'deployment/web:/app/src/fixed', '--read-only');
      const { exitCode, stderr } = await sandbox.kubectl([
        ...['exec', 'deployment/web', '--', 'sh', '-c', 'echo two > /app/src/fixed/file.txt'],
      ]);
      expect(exitCode).not.toBe(0);
      expect(stderr).toContain('Read-only file system');
      await write('fixed/file.txt', 'three');
      expect(await read('deployment/web', '/app/src/fixed/file.txt')).toBe('three');
      await sandbox.must(['unmount', 'deployment/web:/app/src/fixed']);
    });

    it('may be a single file, which an editor replaces by another', async () => {
      await write('settings.json', '{"turn":0}');
      expect(await mount('settings.json', 'deployment/web:/etc/settings.json')).toContain('rolled once');
      const pod = await podOf(sandbox, 'web');
      for (let turn = 1; turn <= 5; turn += 1) {
        const text = `{"turn":${String(turn)}}`;
        await write('.settings.json.tmp', text);
        await rename(path('.settings.json.tmp'), path('settings.json'));
        await untilRead(sandbox, { pod, path: '/etc/settings.json', text, timeoutMs: 2_000 });
      }
      await inPod(sandbox, pod, ['sh', '-c', 'printf own > /etc/settings.json']);
      expect(await readFile(path('settings.json'), 'utf8')).toBe('own');
      const inside = await watchInPod(sandbox, pod, '/etc/settings.json');
      await write('settings.json', 'edited in place');
      await inside.until('');
      await inside.stop();
    });
  });

  describe('whatever it holds', () => {
    it('has any name', async () => {
      const before = await podsOf(sandbox, 'web');
      for (const [index, name] of ODD_NAMES.entries()) {
        await write(join('odd', name, 'file with ümlaut, comma: and colon.txt'), name);
        await mkdir(path('app/odd', String(index)), { recursive: true });
        await mount(join(sandbox.directory, 'odd', name), `deployment/web:/app/src/odd/${String(index)}`);
        const file = `/app/src/odd/${String(index)}/file with ümlaut, comma: and colon.txt`;
        expect(await read('deployment/web', file)).toBe(name);
      }
      await mkdir(path('app/odd/ünï, çödé'));
      await mount(join('odd', ODD_NAMES[0] ?? ''), 'deployment/web:/app/src/odd/ünï, çödé');
      expect(await inPod(sandbox, 'deployment/web', ['ls', '/app/src/odd/ünï, çödé'])).toContain('comma: and colon');
      expect((await listMounts(sandbox)).map(({ source }) => source)).toEqual(
        expect.arrayContaining(ODD_NAMES.map((name) => path('odd', name))),
      );
      expect(await podsOf(sandbox, 'web')).toEqual(before);
      const odd = (await listMounts(sandbox)).filter(({ target }) => target.startsWith('/app/src/odd/'));
      expect(odd).toHaveLength(ODD_NAMES.length + 1);
      for (const { id } of odd) await sandbox.must(['unmount', id]);
    });

    it('shows symbolic links as they are', async () => {
      await write('app/links/real/file.txt', 'linked');
      await symlink('real/file.txt', path('app/links/to-file'));
      await symlink('real', path('app/links/to-folder'));
      await symlink('nowhere', path('app/links/dangling'));
      await symlink('/etc/hostname', path('app/links/absolute'));
      const pod = await podOf(sandbox, 'web');
      expect(await read(pod, '/app/src/links/to-file')).toBe('linked');
      expect(await read(pod, '/app/src/links/to-folder/file.txt')).toBe('linked');
      const names = ['to-file', 'to-folder', 'dangling', 'absolute'].map((name) => `/app/src/links/${name}`);
      const targets = await inPod(sandbox, pod, ['readlink', ...names]);
      expect(targets.trim().split('\n')).toEqual(['real/file.txt', 'real', 'nowhere', '/etc/hostname']);
      // An absolute link is followed where it is read.
      expect((await read(pod, '/app/src/links/absolute')).trim()).toBe(pod);
      await inPod(sandbox, pod, ['ln', '-s', 'real', '/app/src/links/from-pod']);
      expect((await lstat(path('app/links/from-pod'))).isSymbolicLink()).toBe(true);
    });

    it('carries a file of 1 GiB either way', async () => {
      await writeGibibyte(path('app/large'));
      const pod = await podOf(sandbox, 'web');
      const sum = await sha256(path('app/large'));
      expect(await inPod(sandbox, pod, ['sha256sum', '/app/src/large'])).toContain(sum);
      await inPod(sandbox, pod, [
        'sh',
        '-c',
        'mv /app/src/large /app/src/moved && cat /app/src/moved > /app/src/copied',
      ]);
      await rm(path('app/moved'));
      expect(await sha256(path('app/copied'))).toBe(sum);
      await rm(path('app/copied'));
    });

    it('shows a git checkout of 10,000 files whole, and no event is lost', async () => {
      await makeRepository(path('app/repository'));
      const pod = await podOf(sandbox, 'web');
      const { summary } = await countInPod(sandbox, pod, '/app/src/repository');
      await git(path('app/repository'), 'checkout', '--quiet', 'second');
      await write('app/repository/.done', '');
      const list = `cd "$1" && find . -path ./.git -prune -o -type f ! -name .done -print0 | sort -z | xargs -0 sha256sum | sha256sum`;
      const { stdout: outside } = await execa('sh', ['-c', list, 'sh', path('app/repository')], {
        env: { LC_ALL: 'C' },
      });
      const inside = await inPod(sandbox, pod, ['env', 'LC_ALL=C', 'sh', '-c', list, 'sh', '/app/src/repository']);
      expect(inside.trim()).toBe(outside.trim());
      const { names, events } = await summary;
      expect(names).toBe(10_000);
      expect(events).toBeGreaterThanOrEqual(10_000);
      await rm(path('app/repository'), { recursive: true });
    });
  });

  describe('when its workload is deployed anew', () => {
    const everyPodHasIt = async (count: number): Promise<void> => {
      await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', '--timeout=60s']);
      const pods = await eventually(`${String(count)} pods`, async () => {
        const running = await podsOf(sandbox, 'web');
        return running.length === count ? running : undefined;
      });
      for (const { name } of pods) expect(await read(name, '/app/src/hello.txt')).toBe('hello\n');
    };

    it('stays through scale, rollout restart, replace, and delete and apply', async () => {
      await sandbox.mustKubectl(['scale', 'deployment/web', '--replicas=3']);
      await everyPodHasIt(3);
      await sandbox.mustKubectl(['rollout', 'restart', 'deployment/web']);
      await everyPodHasIt(3);
      const changed = workload('Deployment', 'web', {
        replicas: 2,
        containers: [{ name: 'main', env: [{ name: 'VERSION', value: '2' }] }],
      });
      await sandbox.mustKubectl(['replace', '-f', '-'], { stdin: listOf([changed]) });
      await everyPodHasIt(2);
      // As a chart's uninstall and install do it.
      await sandbox.mustKubectl(['delete', 'deployment', 'web', '--wait=true']);
      await apply(sandbox, workload('Deployment', 'web'));
      await everyPodHasIt(1);
    });

    it('is in no object of the user', async () => {
      const { spec } = await sandbox.getObject('deployment', 'web');
      expect(JSON.stringify(spec)).not.toContain('/app/src');
    });

    it('reaches every kind of workload', async () => {
      await write('kinds/file.txt', 'here');
      await deploy(sandbox, workload('StatefulSet', 'state'));
      await deploy(sandbox, workload('DaemonSet', 'every'));
      for (const workloadName of ['statefulset/state', 'daemonset/every']) {
        expect(await mount('kinds', `${workloadName}:/kinds`)).toContain('rolled once');
        expect(await read(workloadName, '/kinds/file.txt')).toBe('here');
      }
      await apply(sandbox, toolboxPod('alone'), {
        apiVersion: 'batch/v1',
        kind: 'CronJob',
        metadata: { name: 'tick' },
        spec: {
          schedule: '0 0 1 1 *',
          jobTemplate: {
            spec: {
              template: withSpec(podTemplate('tick'), { restartPolicy: 'Never' }),
            },
          },
        },
      });
      expect(await mount('kinds', 'cronjob/tick:/kinds')).not.toContain('rolled once');
      await sandbox.mustKubectl(['create', 'job', 'tick-1', '--from=cronjob/tick']);
      await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod', '-l', 'app=tick', '--timeout=60s']);
      expect(await read(await podOf(sandbox, 'tick'), '/kinds/file.txt')).toBe('here');

      await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/alone', '--timeout=60s']);
      expect(await mount('kinds', 'pod/alone:/kinds')).not.toContain('rolled once');
      await sandbox.mustKubectl(['delete', 'pod', 'alone', '--wait=true']);
      await apply(sandbox, toolboxPod('alone'));
      await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/alone', '--timeout=60s']);
      expect(await read('alone', '/kinds/file.txt')).toBe('here');
      await sandbox.mustKubectl(['delete', '--wait=false', 'sts/state', 'ds/every', 'cronjob/tick', 'pod/alone']);
    });

    it('goes into the container that is named, and else into the default one', async () => {
      await deploy(sandbox, workload('Deployment', 'pair', { containers: [{ name: 'first' }, { name: 'second' }] }));
      await mount('kinds', 'deployment/pair/second:/named');
      await mount('kinds', 'deployment/pair:/unnamed');
      const list = (container: string): Promise<string> =>
        inPod(sandbox, 'deployment/pair', ['sh', '-c', 'ls -d /named /unnamed 2>/dev/null || true'], { container });
      expect(await list('first')).toBe('/unnamed\n');
      expect(await list('second')).toBe('/named\n');
      await sandbox.mustKubectl(['delete', '--wait=false', 'deployment/pair']);
    });

    it('needs no workload: a hostPath volume of your own finds it', async () => {
      const output = await mount('kinds');
      const [hostPath = ''] = /\/var\/lib\/sandbar\/mounts\/\S+/.exec(output) ?? [];
      const volumes = [{ name: 'own', hostPath: { path: hostPath } }];
      const volumeMounts = [{ name: 'own', mountPath: '/own', mountPropagation: 'HostToContainer' }];
      await apply(sandbox, toolboxPod('own', { volumes }, { volumeMounts }));
      await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/own', '--timeout=60s']);
      expect(await read('own', '/own/file.txt')).toBe('here');
      await sandbox.mustKubectl(['delete', '--wait=false', 'pod/own']);
    });
  });

  describe('with excluded paths', () => {
    const images = ['sandbar-test/excluded:1', 'sandbar-test/excluded:2'];
    const busybox = (...command: readonly string[]): Promise<string> =>
      inPod(sandbox, 'deployment/excluding', ['/bin/busybox', ...command]);
    const object = (image: string | undefined): object =>
      workload('Deployment', 'excluding', {
        image: image ?? '',
        containers: [{ name: 'main', command: ['/bin/busybox', 'sleep', '100000'] }],
      });

    it("keeps there the image's own content, and nothing of it is in the host's folder", async () => {
      for (const [index, image] of images.entries()) {
        await layerImage(sandbox.docker, image, [
          { 'app/node_modules/package/index.js': `image ${String(index + 1)}` },
        ]);
      }
      await sandbox.must(['image', 'load', ...images]);
      await write('project/index.js', 'mine');
      await write('project/node_modules/package/index.js', "the host's own, for another platform");
      await deploy(sandbox, object(images[0]));
      await mount('project', 'deployment/excluding:/app', '--exclude', 'node_modules');
      expect(await busybox('cat', '/app/index.js', '/app/node_modules/package/index.js')).toBe('mineimage 1');
      await busybox('sh', '-c', 'echo built > /app/node_modules/.cache && echo out > /app/out');
      expect(await readdir(path('project/node_modules'))).toEqual(['package']);
      expect(await readFile(path('project/out'), 'utf8')).toBe('out\n');
      await write('project/index.js', 'edited');
      expect(await busybox('cat', '/app/index.js')).toBe('edited');
    });

    it('keeps what was written there when a pod goes', async () => {
      await sandbox.mustKubectl(['delete', 'pod', '-l', 'app=excluding', '--wait=true']);
      await sandbox.mustKubectl(['rollout', 'status', 'deployment/excluding', '--timeout=60s']);
      expect(await busybox('cat', '/app/node_modules/.cache')).toBe('built\n');
    });

    it('begins anew from an image that has changed', async () => {
      await deploy(sandbox, object(images[1]));
      expect(await busybox('cat', '/app/node_modules/package/index.js')).toBe('image 2');
      expect(await busybox('ls', '-A', '/app/node_modules')).toBe('package\n');
    });

    it('leaves a host folder without such a path as it is', async () => {
      await write('bare/index.js', 'bare');
      await mount('bare', 'deployment/excluding:/app', '--exclude', 'node_modules');
      await sandbox.mustKubectl(['rollout', 'restart', 'deployment/excluding']);
      await sandbox.mustKubectl(['rollout', 'status', 'deployment/excluding', '--timeout=60s']);
      expect(await busybox('cat', '/app/index.js', '/app/node_modules/package/index.js')).toBe('bareimage 2');
      const left = await readdir(path('bare'), { recursive: true });
      expect(left.filter((name) => !['index.js', 'node_modules'].includes(name))).toEqual([]);
      await sandbox.mustKubectl(['delete', '--wait=false', 'deployment/excluding']);
    });
  });

  describe('belongs to whom its folder belongs to', () => {
    const USER = 4321;
    const containers = [
      { name: 'as-root', securityContext: { runAsUser: 0, runAsGroup: 0 } },
      { name: 'as-1000', securityContext: { runAsUser: 1000, runAsGroup: 1000 } },
      { name: 'as-same', securityContext: { runAsUser: USER, runAsGroup: USER } },
    ];
    /** Each container writes, changes and owns a file; the host sees all of them as the folder's owner's. */
    const expectOwnership = async (folder: string, app: string, owner: number): Promise<void> => {
      for (const { name: container } of containers) {
        const pod = `deployment/${app}`;
        const script = [
          `cd /work && printf made > made-${container} && mkdir folder-${container} && printf x >> given-${container}`,
          `[ "$(stat -c %u made-${container})" = "$(id -u)" ] && [ "$(stat -c %u given-${container})" = "$(id -u)" ]`,
          `chmod 600 made-${container}`,
        ];
        await inPod(sandbox, pod, ['sh', '-ec', script.join('\n')], { container });
        for (const name of [`made-${container}`, `folder-${container}`, `given-${container}`]) {
          const { uid, gid } = await stat(join(folder, name));
          expect({ name, uid, gid }).toEqual({ name, uid: owner, gid: owner });
        }
        expect((await stat(join(folder, `made-${container}`))).mode & 0o777).toBe(0o600);
      }
    };
    const givenFiles = async (folder: string, owner: number): Promise<void> => {
      for (const { name } of containers) {
        await writeFile(join(folder, `given-${name}`), '');
        await chmod(join(folder, `given-${name}`), 0o644);
        await chown(join(folder, `given-${name}`), owner, owner);
      }
    };

    it.skipIf(!isRoot)('called by root: to root, whoever the containers run as', async () => {
      await mkdir(path('owned'));
      await givenFiles(path('owned'), 0);
      await deploy(sandbox, workload('Deployment', 'owners', { containers }));
      for (const { name } of containers) await mount('owned', `deployment/owners/${name}:/work`);
      await expectOwnership(path('owned'), 'owners', 0);
      await sandbox.mustKubectl(['delete', '--wait=false', 'deployment/owners']);
    });

    it.skipIf(!isRoot)('called by another user: to that user, whoever the containers run as', async () => {
      const home = await mkdtemp(join(tmpdir(), 'sandbar-user-'));
      try {
        const folder = join(home, 'project');
        await mkdir(folder);
        await givenFiles(folder, USER);
        await chown(folder, USER, USER);
        await chown(home, USER, USER);
        await deploy(sandbox, workload('Deployment', 'strangers', { containers }));
        for (const { name } of containers) {
          const { exitCode, stderr } = await runAs(USER, home, [
            'mount',
            'project',
            `deployment/strangers/${name}:/work`,
          ]);
          expect(exitCode, stderr).toBe(0);
        }
        await expectOwnership(folder, 'strangers', USER);
        const rows = await listMounts(sandbox);
        expect(rows.filter(({ source }) => source === folder).map(({ events }) => events)).toEqual(
          containers.map(() => 'native'),
        );
        await sandbox.must(['unmount', folder]);
        await sandbox.mustKubectl(['delete', '--wait=false', 'deployment/strangers']);
      } finally {
        await rm(home, { recursive: true });
      }
    });

    /** Runs `sandbar` as a user that may use the engine. */
    async function runAs(uid: number, home: string, args: readonly string[]): Promise<RunResult> {
      const { gid: dockerGroup } = await stat('/var/run/docker.sock');
      const user = [`--reuid=${String(uid)}`, `--regid=${String(uid)}`, `--groups=${String(dockerGroup)}`];
      const {
        exitCode = -1,
        stdout,
        stderr,
      } = await execa('setpriv', [...user, process.execPath, SANDBAR, ...args], {
        cwd: home,
        env: { ...sandbox.env, HOME: home, XDG_STATE_HOME: join(home, 'state'), DOCKER_CONFIG: join(home, '.docker') },
        reject: false,
      });
      return { exitCode, stdout, stderr };
    }
  });

  describe('is refused', () => {
    const refused = async (args: readonly string[]): Promise<string> => {
      const [records, containers] = await Promise.all([recordNames(sandbox), mountContainers(sandbox)]);
      const { exitCode, stderr } = await sandbox.run(['mount', ...args]);
      expect(exitCode, stderr).not.toBe(0);
      expect(stderr).toContain('fix:');
      expect(await recordNames(sandbox)).toEqual(records);
      expect((await mountContainers(sandbox)).map(({ Id: id }) => id)).toEqual(containers.map(({ Id: id }) => id));
      return stderr;
    };

    it.each(['/', '/etc', '/usr', '/run/docker.sock', '/var/lib', '/proc'])(
      'for the system path %s',
      async (source) => {
        expect(await refused([source, 'deployment/web:/x'])).toContain(source);
      },
    );

    it('for a folder of credentials, unless that is agreed to', async () => {
      for (const name of ['.ssh', '.aws', '.kube', '.docker', '.gnupg']) {
        await mkdir(join(sandbox.home, name), { recursive: true });
        const words = await refused([join(sandbox.home, name), 'deployment/web:/x']);
        expect(words).toContain('--allow-sensitive');
      }
      await symlink(join(sandbox.home, '.ssh'), path('harmless'));
      await refused(['harmless', 'deployment/web:/x']);
      await mkdir(path('app/aws'));
      await mount(join(sandbox.home, '.aws'), 'deployment/web:/app/src/aws', '--allow-sensitive');
      await sandbox.must(['unmount', 'deployment/web:/app/src/aws']);
    });

    it.each(['/', '/proc', '/proc/sys', '/sys', '/dev', '/etc', '/usr', '/bin', '/lib'])(
      'where it would hide %s of the container',
      async (target) => {
        expect(await refused(['app', `deployment/web:${target}`])).toContain(target);
      },
    );

    it('for what is not there, with what is', async () => {
      expect(await refused(['nothing-here', 'deployment/web:/x'])).toContain('nothing-here');
      expect(await refused(['app', 'deployment/wep:/x'])).toContain('web');
      expect(await refused(['app', 'deployment/web/side:/x'])).toContain('main');
    });

    it('where a link leads out of the folder of sandbar.yaml', async () => {
      const config = await sandbox.writeConfig('mounts: { deployment/web: [./out:/app/src/out] }\n');
      const outside = await mkdtemp(join(tmpdir(), 'sandbar-outside-'));
      await symlink(outside, path('out'));
      const { exitCode, stderr } = await sandbox.run(['up', '--file', config]);
      expect(exitCode).not.toBe(0);
      expect(stderr).toContain('out');
      await rm(config);
      await rm(outside, { recursive: true });
    });
  });

  describe('of sandbar.yaml', () => {
    it('is part of up, and goes when it is taken out', async () => {
      await sandbox.must(['unmount', '--all']);
      await deploy(sandbox, workload('Deployment', 'declared'));
      await write('declared/file.txt', 'declared');
      await write('long/file.txt', 'long');
      const mounts = `  deployment/declared:
    - \${DECLARED:-./declared}:/declared:ro
    - type: bind
      source: ./made
      target: /made
      bind: { create_host_path: true }
    - { type: bind, source: ./long, target: /long, read_only: true }
`;
      await sandbox.writeConfig(`mounts:\n${mounts}`);
      expect((await sandbox.up()).steps).not.toEqual([]);
      await sandbox.mustKubectl(['rollout', 'status', 'deployment/declared', '--timeout=60s']);
      await untilRead(sandbox, { pod: 'deployment/declared', path: '/declared/file.txt', text: 'declared' });
      expect(await read('deployment/declared', '/long/file.txt')).toBe('long');
      expect((await stat(path('made'))).isDirectory()).toBe(true);
      // One container for all of a project.
      expect(await mountContainers(sandbox)).toHaveLength(1);
      const pods = await podsOf(sandbox, 'declared');
      expect((await sandbox.up()).steps).toEqual([]);
      expect(await podsOf(sandbox, 'declared')).toEqual(pods);

      // Another source for the same target needs no new pods.
      await write('other/file.txt', 'other');
      await sandbox.up([], { env: { DECLARED: './other' } });
      await untilRead(sandbox, { pod: 'deployment/declared', path: '/declared/file.txt', text: 'other' });
      expect(await podsOf(sandbox, 'declared')).toEqual(pods);

      await sandbox.writeConfig('mounts: {}\n');
      await sandbox.up();
      await sandbox.mustKubectl(['rollout', 'status', 'deployment/declared', '--timeout=60s']);
      expect(await inPod(sandbox, 'deployment/declared', ['sh', '-c', 'ls -A /declared 2>/dev/null || true'])).toBe('');
      expect(await listMounts(sandbox)).toEqual([]);
      expect(await mountContainers(sandbox)).toEqual([]);
      expect((await sandbox.up()).steps).toEqual([]);
    });

    it('waits for its workload, and leaves alone what the command mounted', async () => {
      await mount('declared', 'deployment/web:/by-command');
      await sandbox.writeConfig('mounts: { deployment/later: [./declared:/declared] }\n');
      await sandbox.up();
      await deploy(sandbox, workload('Deployment', 'later'));
      expect(await read('deployment/later', '/declared/file.txt')).toBe('declared');
      await sandbox.writeConfig('mounts: {}\n');
      await sandbox.up();
      expect((await listMounts(sandbox)).map(({ target }) => target)).toEqual(['/by-command']);
      expect(await read('deployment/web', '/by-command/file.txt')).toBe('declared');
    });

    it('is written there by --save, comments kept', async () => {
      await sandbox.writeConfig('# mine\nobjectStore: # kept too\n  buckets: [kept]\n');
      await mount('declared', 'deployment/later:/saved', '--save');
      const text = await readFile(path('sandbar.yaml'), 'utf8');
      expect(text).toContain('# mine\n');
      expect(text).toContain('# kept too');
      expect(text).toContain('deployment/later');
      expect(text).toMatch(/\.\/declared:\/saved/);
      const pods = await podsOf(sandbox, 'later');
      await sandbox.up();
      expect(await podsOf(sandbox, 'later')).toEqual(pods);
      expect(await read('deployment/later', '/saved/file.txt')).toBe('declared');
    });
  });

  it('leaves nothing behind when all are unmounted', async () => {
    await sandbox.must(['unmount', '--all']);
    expect(await mountContainers(sandbox)).toEqual([]);
    expect(await recordNames(sandbox)).toEqual([]);
    expect(await listMounts(sandbox)).toEqual([]);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', '--timeout=60s']);
    expect(await inPod(sandbox, 'deployment/web', ['sh', '-c', 'ls -A /by-command 2>/dev/null || true'])).toBe('');
  });
});

function withSpec(template: object, spec: object): object {
  const { spec: before } = template as { spec: object };
  return { ...template, spec: { ...before, ...spec } };
}

async function writeGibibyte(file: string): Promise<void> {
  const block = randomBytes(8 * MIB);
  const handle = await open(file, 'w');
  try {
    for (let number = 0; number < 128; number += 1) {
      // No block is like another.
      block.writeUInt32LE(number, 0);
      await handle.write(block);
    }
  } finally {
    await handle.close();
  }
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: MIB }), hash);
  return hash.digest('hex');
}
