/** Which sources and targets are refused, and what the cluster is to know of mounts. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mountIdOf, parseRecord, recordObject, rootIdOf } from '../../src/model/mounts.ts';
import type { MountRecord, MountSpec, MountTarget } from '../../src/model/mounts.ts';
import { planRecords } from '../../src/mounts/records.ts';
import { findSourceProblem, findTargetProblem } from '../../src/mounts/refusals.ts';

const HOMES: Readonly<Partial<Record<NodeJS.Platform, string>>> = {
  linux: '/home/ada',
  darwin: '/Users/ada',
  win32: 'C:\\Users\\ada',
};

function refuse(platform: NodeJS.Platform, source: string, changes: object = {}): string {
  const homeDirectory = HOMES[platform] ?? '';
  return findSourceProblem(source, { homeDirectory, platform, allowsSensitive: false, ...changes })?.message ?? 'fine';
}

describe('a source', () => {
  it.each<[NodeJS.Platform, readonly string[]]>([
    [
      'linux',
      [
        ...['/home/ada/app', '/home/ada/app/.ssh', '/home/bob/app', '/home/ada/.sshd', '/home/ada/.config/nvim'],
        ...['/tmp', '/tmp/x', '/var/tmp', '/var/tmp/x', '/var/www', '/var/www/html', '/var/opt/app', '/var/home/ada/x'],
        ...[
          '/srv',
          '/srv/app',
          '/opt',
          '/opt/app',
          '/mnt',
          '/mnt/c/src',
          '/mnt/d',
          '/media/ada/stick',
          '/workspaces/app',
        ],
        ...[
          '/run/media/ada/stick',
          '/dev/shm/x',
          '/usr/src/app',
          '/usr/local/src/app',
          '/library',
          '/binary',
          '/root/app',
        ],
        ...[
          '/nix/store/x',
          '/data',
          '/home/ada/etc',
          '/home/ada/app/docker.socket',
          '/System',
          '/Library/x',
          '/etcetera',
        ],
      ],
    ],
    [
      'darwin',
      [
        ...[
          '/Users/ada/app',
          '/Users/Shared/app',
          '/private/var/folders/8x/y/T/z',
          '/private/tmp/x',
          '/var/folders/8x',
        ],
        ...['/usr/local/src', '/opt/homebrew/var/www', '/Volumes/Stick/app', '/System/Volumes/Data/Users/ada/app'],
        ...['/Users/ada/Library/Caches/x', '/tmp/x'],
      ],
    ],
    [
      'win32',
      [
        'C:\\Users\\ada\\app',
        'c:/Users/ada/app',
        'D:\\',
        'D:\\work',
        'C:\\src',
        'C:\\Windowsills',
        '\\\\wsl$\\Ubuntu\\x',
      ],
    ],
  ])('is anything of your own (%s)', (platform, sources) => {
    expect(sources.filter((source) => refuse(platform, source) !== 'fine')).toEqual([]);
  });

  it.each<[NodeJS.Platform, string, string]>([
    ['linux', '/', '/ is all of this machine'],
    ['linux', '/etc', '/etc is a system folder'],
    ['linux', '/etc/', '/etc/ is a system folder'],
    ['linux', '/etc/nginx/nginx.conf', '/etc/nginx/nginx.conf lies in the system folder /etc'],
    ['linux', '/usr/bin/env', '/usr/bin/env lies in the system folder /usr'],
    ['linux', '/var', '/var is a system folder'],
    ['linux', '/var/lib/docker/volumes/x', '/var/lib/docker/volumes/x lies in the system folder /var'],
    ['linux', '/mnt/c/Windows/System32', '/mnt/c/Windows/System32 lies in the system folder /mnt/c/Windows'],
    ['linux', '/run/user/1000/x', '/run/user/1000/x lies in the system folder /run'],
    ['linux', '/proc/self', '/proc/self lies in the system folder /proc'],
    ['linux', '/home', '/home holds the home folders, with their credentials'],
    ['linux', '/home/ada', '/home/ada is a home folder, which holds credentials'],
    ['linux', '/root', '/root is a home folder, which holds credentials'],
    ['linux', '/root/.ssh', '/root/.ssh holds credentials (~/.ssh)'],
    ['linux', '/home/ada/.ssh/id_rsa', '/home/ada/.ssh/id_rsa holds credentials (~/.ssh)'],
    ['linux', '/home/ada/.config', '/home/ada/.config may hold credentials (~/.config/gcloud)'],
    ['darwin', '/private/etc/ssl', '/private/etc/ssl lies in the system folder /private'],
    ['darwin', '/private/var/db', '/private/var/db lies in the system folder /private'],
    ['darwin', '/system/library', '/system/library lies in the system folder /System'],
    ['darwin', '/Users', '/Users holds the home folders, with their credentials'],
    ['darwin', '/users/ADA/.SSH', '/users/ADA/.SSH holds credentials (~/.ssh)'],
    ['darwin', '/Users/ada/Library', '/Users/ada/Library may hold credentials (~/Library/Keychains)'],
    ['win32', 'C:\\', 'C:\\ is all of this machine'],
    ['win32', 'c:/windows/system32', 'c:/windows/system32 lies in the system folder c:\\Windows'],
    ['win32', 'C:\\Program Files (x86)', 'C:\\Program Files (x86) is a system folder'],
    ['win32', 'C:\\Users', 'C:\\Users holds the home folders, with their credentials'],
    ['win32', 'C:\\Users\\Ada\\.aws', 'C:\\Users\\Ada\\.aws holds credentials (~/.aws)'],
  ])('is refused with the reason (%s %s)', (platform, source, message) => {
    expect(refuse(platform, source)).toBe(message);
  });

  it.each(['.ssh', '.aws', '.kube', '.docker', '.gnupg', '.kube/config'])('is ~/%s only if that is agreed', (name) => {
    expect(refuse('linux', `/home/ada/${name}`)).toContain('holds credentials');
    expect(refuse('linux', `/home/ada/${name}`, { allowsSensitive: true })).toBe('fine');
    expect(refuse('linux', '/home/ada', { allowsSensitive: true })).toBe('fine');
    expect(refuse('linux', '/etc', { allowsSensitive: true })).toBe('/etc is a system folder');
  });

  it('is never the socket of an engine, wherever it is', () => {
    const rules = "a container engine's socket: whoever has it rules this machine";
    for (const source of ['/var/run/docker.sock', '/home/ada/.colima/docker.sock', '/srv/podman.sock']) {
      expect(refuse('linux', source, { allowsSensitive: true })).toBe(`${source} is ${rules}`);
    }
    expect(refuse('win32', '\\\\.\\pipe\\docker_engine')).toBe(`\\\\.\\pipe\\docker_engine is ${rules}`);
    const socketPath = '/srv/engine/api';
    expect(refuse('linux', '/srv/engine/api', { socketPath, allowsSensitive: true })).toContain('is a container');
    expect(refuse('linux', '/srv/engine', { socketPath })).toContain('/srv/engine holds the container engine');
    expect(refuse('linux', '/srv/engine', { socketPath, allowsSensitive: true })).toBe('fine');
    expect(refuse('linux', '/srv/app', { socketPath })).toBe('fine');
  });

  it('may not leave the folder that it was declared in', () => {
    const declaredRoot = '/home/ada/app';
    expect(refuse('linux', '/home/ada/app', { declaredRoot })).toBe('fine');
    expect(refuse('linux', '/home/ada/app/src', { declaredRoot })).toBe('fine');
    expect(refuse('linux', '/home/ada/apple', { declaredRoot })).toBe(
      'a symbolic link leads out of /home/ada/app, to /home/ada/apple',
    );
  });

  it('may lie in the home folder of an account of a service', () => {
    const homeDirectory = '/var/lib/jenkins';
    expect(refuse('linux', '/var/lib/jenkins/workspace/app', { homeDirectory })).toBe('fine');
    expect(refuse('linux', '/var/lib/jenkins', { homeDirectory })).toContain('is a home folder');
    expect(refuse('linux', '/var/lib/docker', { homeDirectory })).toContain('system folder');
    expect(refuse('linux', '/usr/bin', { homeDirectory: '/usr/bin' })).toContain('system folder');
    expect(refuse('linux', '/var/run', { homeDirectory: '/var' })).toContain('system folder');
    expect(refuse('darwin', '/private/var/root/app', { homeDirectory: '/private/var/root' })).toBe('fine');
  });
});

describe('a target', () => {
  it.each([
    ...['/app', '/app/src', '/etc/app', '/etc/nginx/conf.d', '/usr/share/nginx/html', '/usr/src/app', '/tmp', '/home'],
    ...['/var/www', '/var/www/html', '/var/lib/app', '/run/app', '/run/secrets/token', '/usr/local/bin/tool', '/root'],
    ...['/opt', '/srv', '/data, with a comma', '/ünïcode', '/device', '/usr/local/lib/python3.12/site-packages/app'],
  ])('may be %s', (target) => {
    expect(findTargetProblem(target)).toBeUndefined();
  });

  it.each<readonly [string, string]>([
    ['/', 'target / would hide the whole container'],
    ['//', 'target / would hide the whole container'],
    ...[
      '/etc',
      '/etc/',
      '/bin',
      '/sbin',
      '/lib',
      '/lib64',
      '/usr',
      '/usr/',
      '/usr/bin',
      '/usr/lib',
      '/run',
      '/var/run',
    ].map((target) => [target, `target ${target} would hide a system path of the container`] as const),
    ['/proc', "target /proc is the kernel's in a container"],
    ['/sys/fs', "target /sys/fs is the kernel's in a container"],
    ['/dev/shm', "target /dev/shm is the kernel's in a container"],
    ['/etc/resolv.conf', "target /etc/resolv.conf is the kubelet's in a container"],
    [
      '/var/run/secrets/kubernetes.io/serviceaccount',
      "target /var/run/secrets/kubernetes.io/serviceaccount is the pod's service account in a container",
    ],
    ['/run/secrets/kubernetes.io', "target /run/secrets/kubernetes.io is the pod's service account in a container"],
    ['/run/secrets', 'target /run/secrets would hide a system path of the container'],
    ['app', 'target "app" is not an absolute path'],
    ['', 'target "" is not an absolute path'],
    ['/app/../etc', 'target /app/../etc contains ..'],
    ['/app:x', 'target /app:x contains a colon, which Kubernetes does not allow'],
  ])('is not %s', (target, message) => {
    expect(findTargetProblem(target)?.message).toBe(message);
  });
});

const inContainer = (path: string, container?: string): MountTarget => ({
  kind: 'workload',
  workload: { namespace: 'default', kind: 'Deployment', name: 'web', container },
  path,
});

function specOf(source: string, target: MountTarget, excluded: readonly string[] = []): MountSpec {
  return { source, writtenSource: source, target, isReadOnly: false, excluded, createsSource: false };
}

function planned(
  specs: readonly MountSpec[],
  changes: Partial<Parameters<typeof planRecords>[1]> = {},
): readonly MountRecord[] {
  return planRecords(specs, {
    origin: 'command',
    projectDirectory: undefined,
    homeDirectory: '/home/ada',
    existing: [],
    sourceTypeOf: () => 'Directory',
    ...changes,
  });
}

describe('a root', () => {
  const rootOf = (source: string, changes: Parameters<typeof planned>[1] = {}): string | undefined =>
    planned([specOf(source, inContainer('/app'))], changes)[0]?.root;

  it.each([
    ['/home/ada/app/src', '/home/ada/app', '/home/ada/app'],
    ['/home/ada/app/deep/src', '/home/ada/app', '/home/ada/app'],
    ['/home/ada/app', '/home/ada/app', '/home/ada'],
    ['/home/ada/other/src', '/home/ada/app', '/home/ada/other'],
    ['/home/ada/app/deep/src', undefined, '/home/ada/app/deep'],
    ['/home/ada/app/src', '/home/ada', '/home/ada/app'],
    ['/home/ada/app/src', '/home', '/home/ada/app'],
    ['/srv/app/src', '/', '/srv/app'],
    ['/srv', undefined, '/srv'],
    ['/var/www', undefined, '/var/www'],
    ['/var/www/html', undefined, '/var/www'],
    ['C:\\work\\app', undefined, 'C:\\work'],
    ['C:\\work', undefined, 'C:\\work'],
    ['C:\\work\\app\\src', 'C:\\work', 'C:\\work'],
  ])('of %s with the project %s is %s', (source, projectDirectory, root) => {
    expect(rootOf(source, { projectDirectory })).toBe(root);
  });

  it('that has a container is used again: the project’s first, then the nearest, then its own', () => {
    const before = (root: string, target: string) => ({ ...record(`${root}/x`, target), root });
    const record = (source: string, target: string): MountRecord =>
      planned([specOf(source, inContainer(target))])[0] as MountRecord;
    const existing = [before('/home/ada', '/a'), before('/home/ada/app', '/b'), before('/home/ada/app/deep', '/c')];
    expect(rootOf('/home/ada/app/deep/src', { existing })).toBe('/home/ada/app/deep');
    expect(rootOf('/home/ada/app/deep', { existing })).toBe('/home/ada/app');
    const projectDirectory = '/home/ada/app';
    expect(rootOf('/home/ada/app/deep/src', { existing, projectDirectory })).toBe('/home/ada/app');
    const own = { ...record('/home/ada/app/deep/src', '/app'), root: '/home/ada/app/deep' };
    expect(rootOf('/home/ada/app/deep/src', { existing: [own, ...existing], projectDirectory })).toBe(own.root);
    expect(planned([specOf('/srv/a/x', inContainer('/a')), specOf('/srv/a/y/z', inContainer('/b'))])[1]?.root).toBe(
      '/srv/a',
    );
  });
});

describe('records', () => {
  it('lie inside of the nearest mount of the same container, unless that excludes their place', () => {
    const ids = (records: readonly MountRecord[]) =>
      records.map(({ id, parentId }) => [id, parentId ?? 'none'].join(' in ').replaceAll(/-[0-9a-f]{6}/g, ''));
    expect(
      ids(
        planned([
          specOf('/srv/a', inContainer('/app/src/deep')),
          specOf('/srv/b', inContainer('/app'), ['node_modules']),
          specOf('/srv/c', inContainer('/app/src')),
          specOf('/srv/d', inContainer('/application')),
          specOf('/srv/e', inContainer('/app/lib', 'sidecar')),
          specOf('/srv/f', inContainer('/app/node_modules/own')),
          specOf('/srv/g', { kind: 'node' }),
        ]),
      ),
    ).toEqual([
      'web-deep in web-src',
      'web-app in none',
      'web-src in web-app',
      'web-application in none',
      'web-lib in none',
      'web-own in none',
      'g in none',
    ]);
  });

  it('lie inside of mounts that are there, but not of those that the file declares no more', () => {
    const [existing] = planned([specOf('/srv/a', inContainer('/app'))]) as [MountRecord];
    const inside = [specOf('/srv/b', inContainer('/app/src'))];
    const parentOf = (changes: Parameters<typeof planned>[1]) => planned(inside, changes)[0]?.parentId;
    expect(parentOf({ existing: [existing] })).toBe(existing.id);
    expect(parentOf({ existing: [{ ...existing, origin: 'file' }] })).toBe(existing.id);
    expect(parentOf({ existing: [existing], origin: 'file' })).toBe(existing.id);
    expect(parentOf({ existing: [{ ...existing, origin: 'file' }], origin: 'file' })).toBeUndefined();
    expect(parentOf({ existing: [{ ...existing, sourceType: 'File' }] })).toBeUndefined();
  });

  it('stay where running pods have them when a mount around them comes, and come out when it goes', () => {
    const outer = specOf('/srv/a', inContainer('/app'));
    const inner = specOf('/srv/b', inContainer('/app/src'));
    const alone = planned([inner]);
    expect(planned([outer, inner], { existing: alone })[1]?.parentId).toBeUndefined();
    const nested = planned([outer, inner], { origin: 'file' });
    expect(nested[1]?.parentId).toBe(nested[0]?.id);
    expect(planned([inner], { existing: nested, origin: 'file' })[0]?.parentId).toBeUndefined();
    expect(planned([inner], { existing: nested })[0]?.parentId).toBe(nested[0]?.id);
  });

  it('keep what is proven of a source, and nothing of another', () => {
    const [before] = planned([specOf('/srv/a', inContainer('/app'))]) as [MountRecord];
    const existing = [{ ...before, events: 'relayed' as const }];
    expect(planned([specOf('/srv/a', inContainer('/app'))], { existing, origin: 'file' })).toEqual([
      { ...before, events: 'relayed', origin: 'file' },
    ]);
    const [replaced] = planned([specOf('/opt/b', inContainer('/app'))], { existing });
    expect(replaced).toMatchObject({ id: before.id, source: '/opt/b', root: '/opt', events: undefined });
  });
});

const names = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }).filter((name) => {
  return !/[/\\\0:]/.test(name) && name !== '.' && name !== '..';
});
const paths = fc.array(names, { minLength: 1, maxLength: 5 }).map((parts) => `/${parts.join('/')}`);

describe('whatever the paths are', () => {
  it('ids are stable, and names that Kubernetes and Docker take', () => {
    fc.assert(
      fc.property(paths, paths, (source, path) => {
        for (const target of [inContainer(path), { kind: 'node' } as const]) {
          const id = mountIdOf(target, source);
          expect(id).toMatch(/^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$/);
          expect(mountIdOf(target, source)).toBe(id);
        }
        expect(rootIdOf(source)).toMatch(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
        expect(mountIdOf(inContainer(path), source)).toBe(mountIdOf(inContainer(path), '/another'));
      }),
    );
  });

  it('roots hold their sources, parents their targets, and the cluster reads back what was written', () => {
    const some = fc.uniqueArray(fc.tuple(paths, paths), {
      minLength: 1,
      maxLength: 6,
      selector: ([, target]) => target,
    });
    fc.assert(
      fc.property(some, fc.option(paths, { nil: undefined }), (pairs, projectDirectory) => {
        const specs = pairs.map(([source, target]) => specOf(source, inContainer(target)));
        const records = planned(specs, { projectDirectory });
        for (const record of records) {
          const { source, root, parentId, target } = record;
          expect(source === root || source.startsWith(root === '/' ? root : `${root}/`)).toBe(true);
          const parent = records.find(({ id }) => id === parentId);
          expect(parent === undefined).toBe(parentId === undefined);
          if (parent?.target.kind === 'workload' && target.kind === 'workload') {
            expect(target.path.startsWith(`${parent.target.path}/`)).toBe(true);
          }
          expect(parseRecord(recordObject(record))).toEqual(record);
        }
        expect(planned(specs, { projectDirectory, existing: records })).toEqual(records);
      }),
    );
  });

  it('credentials of others are credentials too', () => {
    for (const source of [
      '/home/bob/.ssh',
      '/var/home/bob/.aws',
      '/mnt/c/Users/bob/.kube',
      '/home/bob',
      '/root/.ssh',
    ]) {
      expect(refuse('linux', source)).not.toBe('fine');
    }
    expect(refuse('darwin', '/Users/bob/.ssh')).not.toBe('fine');
    expect(refuse('win32', 'D:\\Users\\bob\\.ssh')).not.toBe('fine');
  });

  it('libraries of an architecture are not hidden, nor the certificates', () => {
    for (const target of ['/usr/lib/x86_64-linux-gnu', '/lib/aarch64-linux-gnu', '/etc/ssl', '/etc/ssl/certs']) {
      expect(findTargetProblem(target)?.message).toContain('system path');
    }
    expect(findTargetProblem('/usr/lib/x86_64-linux-gnu/app')).toBeUndefined();
  });

  it('a record that somebody edited into something else excludes nothing', () => {
    const [record] = planned([specOf('/home/ada/app', inContainer('/app'))], {});
    const object = recordObject({ ...record!, excluded: ['a'] });
    for (const excluded of ['no json', '{}', '[1]']) {
      const edited = { ...object, data: { ...(object['data'] as object), excluded } };
      expect(parseRecord(edited)?.excluded).toEqual([]);
    }
  });

  it('checks never throw', () => {
    const text = fc.string({ unit: 'binary' });
    fc.assert(
      fc.property(text, fc.constantFrom<NodeJS.Platform>('linux', 'darwin', 'win32'), (source, platform) => {
        refuse(platform, source);
        findTargetProblem(source);
      }),
    );
  });
});
