import { describe, expect, it } from 'vitest';
import { MountMachine } from '../builders/mounts.ts';
import { Shell } from '../builders/shell.ts';

/** A shell on a cluster with a Deployment. */
async function openShell(): Promise<Shell<MountMachine>> {
  const machine = await MountMachine.start();
  machine.workload('Deployment', 'web', { replicas: 2 });
  return new Shell(machine);
}

describe('sandbar mount', () => {
  it('says what is mounted where, whether pods were restarted, and how events come', async () => {
    const shell = await openShell();
    const id = expect.stringMatching(
      /^\.\/src is mounted at \/app\/src in deployment\/web \(web-src-[0-9a-f]{6}\)$/,
    ) as string;
    expect(await shell.lines('mount', './src', 'deploy/web:/app/src')).toEqual([
      id,
      '  rolled once: 2 new pods are ready',
      '  file events: native',
    ]);
    expect(await shell.lines('mount', './src', 'deploy/web:/app/src')).toEqual([
      './src is mounted at /app/src in deployment/web already: nothing was changed',
      '  file events: native',
    ]);
  });

  it('takes what a mount may leave out, be, and lie in', async () => {
    const shell = await openShell();
    const { machine } = shell;
    machine.namespace('shop');
    machine.workload('Deployment', 'api', { namespace: 'shop' });
    const options = ['-n', 'shop', '--read-only', '--exclude', 'node_modules', '--exclude', '/app/dist/'];
    const [first] = await shell.lines('mount', '.', 'deployment/api/main:/app', ...options);
    expect(first).toContain('. is mounted at /app in shop/deployment/api/main, read-only');
    expect(machine.records()).toMatchObject([
      {
        target: { workload: { namespace: 'shop', name: 'api', container: 'main' } },
        isReadOnly: true,
        excluded: ['node_modules', 'dist'],
      },
    ]);
  });

  it('prints what a hostPath volume needs where no workload is named', async () => {
    const shell = await openShell();
    const text = (await shell.lines('mount', './src', '/app')).join('\n');
    expect(text).toMatch(/^\.\/src lies at \/var\/lib\/sandbar\/mounts\/src-[0-9a-f]{6} on the node$/m);
    expect(text).toMatch(/hostPath: \{ path: \/var\/lib\/sandbar\/mounts\/src-[0-9a-f]{6}, type: Directory \}/);
    expect(text).toContain('mountPath: /app, mountPropagation: HostToContainer');
  });

  it('says what helps where files cannot be made to look like the user of the container', async () => {
    const shell = await openShell();
    const [first = ''] = await shell.lines('mount', './src', 'deploy/web:/app');
    const [id = ''] = /web-app-[0-9a-f]+/.exec(first) ?? [];
    const users = [{ uid: 1000, gid: 1000 }];
    shell.machine.placed.set(id, { ownership: 'unsupported', fileSystem: '9p', owner: { uid: 501, gid: 20 }, users });
    expect((await shell.lines('mount', './src', 'deploy/web:/app', '--read-only')).slice(-2)).toEqual([
      '  ownership: the container runs as user 1000, the files belong to 501, and 9p cannot map one to the other',
      '  fix: securityContext: { runAsUser: 501, runAsGroup: 20 } in its pod, or sudo chown -R 1000 /home/ada/app/src',
    ]);
  });

  it('starts a relay where events need one, and says that they are relayed', async () => {
    const shell = await openShell();
    const { machine } = shell;
    machine.delivery = 'relayed';
    let end = (): void => undefined;
    shell.startRelay = () => {
      void machine.host.withLock('relay-dev', { onWait: () => undefined }, () => {
        return new Promise<void>((resolve) => (end = resolve));
      });
    };
    const lines = await shell.lines('mount', './src', 'deploy/web:/app');
    expect(lines.at(-1)).toMatch(/^ {2}file events: relayed by a process on this machine/);
    expect(shell.relays).toEqual(['dev']);
    expect(await shell.json('mounts')).toMatchObject([{ events: 'relayed' }]);
    end();
    await new Promise((resolve) => setImmediate(resolve));
    expect((await shell.lines('mounts')).at(-1)).toMatch(/its file events are relayed, and the relay has stopped/);
  });

  it('writes the mount into a new sandbar.yaml, and into the one in use', async () => {
    const shell = await openShell();
    const { files } = shell.machine.host;
    const saved = async (...argv: readonly string[]): Promise<string | undefined> => {
      expect((await shell.lines('mount', ...argv, '--save')).at(-1)).toBe('  saved in /home/ada/app/sandbar.yaml');
      return files.get('/home/ada/app/sandbar.yaml')?.content;
    };
    expect(await saved('./src', 'deploy/web:/app/src')).toBe('mounts:\n  deployment/web:\n    - ./src:/app/src\n');
    expect(await saved('package.json', 'deploy/web:/app/package.json', '--read-only')).toBe(
      'mounts:\n  deployment/web:\n    - ./src:/app/src\n    - ./package.json:/app/package.json:ro\n',
    );
    expect(shell.machine.records().map(({ root }) => root)).toContain('/home/ada/app');
  });

  it.each([
    [['mount', './src', 'web:/app'], 2, 'web'],
    [['mount', './src', 'deploy/web:/app', '--exclude', '../x'], 2, '"../x"'],
    [['mount', './src', '/app', '--save'], 2, '--save needs a workload'],
    [['mount', './scr', 'deploy/web:/app'], 4, 'did you mean /home/ada/app/src?'],
    [['mount', './src', 'deploy/wbe:/app'], 4, 'did you mean deployment/web?'],
    [['mount'], 2, 'source'],
    [['unmount'], 2, 'no mount is named'],
    [['unmount', 'x', '--all'], 2, '--all leaves nothing to name'],
    [['unmount', 'x'], 4, 'nothing is mounted as "x"'],
  ])('refuses %j', async (argv, exitCode, part) => {
    const shell = await openShell();
    const outcome = await shell.run(...argv);
    expect(outcome).toMatchObject({ exitCode, stdout: '' });
    expect(outcome.stderr).toContain(part);
    expect(shell.machine.records()).toEqual([]);
    expect(shell.machine.mountContainers()).toEqual([]);
  });
});

describe('sandbar unmount', () => {
  it('says what is gone, and which workload was rolled', async () => {
    const shell = await openShell();
    await shell.lines('mount', './src', 'deploy/web:/app');
    const lines = await shell.lines('unmount', 'deployment/web:/app');
    expect(lines[0]).toMatch(
      /^\/home\/ada\/app\/src is unmounted from \/app in deployment\/web \(web-app-[0-9a-f]+\)$/,
    );
    expect(lines[1]).toBe('  deployment/web rolled once: 2 new pods are ready');
    expect(await shell.lines('unmount', '--all')).toEqual(['nothing is mounted: nothing was changed']);
  });
});

describe('sandbar mounts', () => {
  it('prints a table, and everything as JSON', async () => {
    const shell = await openShell();
    expect((await shell.lines('mounts'))[0]).toMatch(/^no mounts: /);
    await shell.lines('mount', './src', 'deploy/web:/app', '--exclude', 'dist');
    const [head, row, ...rest] = await shell.lines('mounts');
    expect(head?.split(/\s+/)).toEqual(['SOURCE', 'TARGET', 'WORKLOAD', 'STATE', 'EVENTS', 'FILES', 'MODE', 'ID']);
    expect(row).toMatch(/^\/home\/ada\/app\/src +\/app +deployment\/web +attached +native +ext4 +rw +web-app-/);
    expect(rest).toEqual([expect.stringMatching(/^web-app-[0-9a-f]+: dist kept from the image$/)]);
    expect(await shell.json('mounts')).toMatchObject([
      {
        source: '/home/ada/app/src',
        target: '/app',
        workload: 'deployment/web',
        state: 'attached',
        excluded: ['dist'],
      },
    ]);
    expect(await shell.json('mounts', '-n', 'shop')).toEqual([]);
  });
});
