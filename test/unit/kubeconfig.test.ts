import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { formatKubeconfig, mergeKubeconfig, removeFromKubeconfig } from '../../src/model/kubeconfig.ts';
import { addKubeconfigEntry, findKubeconfigFile, removeKubeconfigEntry } from '../../src/operations/kubeconfig.ts';
import { fakeHost } from '../builders/host.ts';
import type { FakeHost } from '../fakes/fake-host.ts';

const ACCESS = { server: 'https://127.0.0.1:6443', ca: 'CA', certificate: 'CERTIFICATE', key: 'KEY' };
const ENTRY = { name: 'sandbar-dev', access: ACCESS };
const FILE = '/home/ada/.kube/config';

const OURS = `apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: sandbar-dev
contexts:
- context:
    cluster: sandbar-dev
    user: sandbar-dev
  name: sandbar-dev
users:
- user:
    client-certificate-data: Q0VSVElGSUNBVEU=
    client-key-data: S0VZ
  name: sandbar-dev
current-context: sandbar-dev
`;

/** As kubectl and a person's editor leave it: lists at the margin, comments, unknown fields, another order. */
const THEIRS = `# work and home
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: ${'QUFB'.repeat(60)} # do not wrap
    server: "https://work.example:6443"
  name: work

# where I am
contexts:
- context: {cluster: work, user: ada}
  name: work
current-context: work # mine
kind: Config
preferences: {}
x-tool:
  list: ['a', "b"]
users:
- name: ada
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args:
      - --flag
      - |
        several
        lines
      command: login
`;

/** The same with its lists indented by two, by a person who likes four columns a level. */
const INDENTED = `clusters:
    - name: work
      cluster:
          server: https://work.example:6443
contexts: []
users:
`;

const contentOf = (host: FakeHost, file: string): string | undefined => host.files.get(file)?.content;

const without = (text: string, lines: readonly string[]): string =>
  text
    .split('\n')
    .filter((line) => !lines.includes(line))
    .join('\n');

describe('a kubeconfig', () => {
  it('for one cluster alone is complete', () => {
    expect(formatKubeconfig(ACCESS, 'sandbar-dev')).toBe(OURS);
  });

  it('gets an entry, and nothing else of it changes', () => {
    const merged = mergeKubeconfig({ file: FILE, text: THEIRS }, ENTRY);
    const added = OURS.split('\n').filter((line) => line.startsWith('- ') || line.startsWith('  '));
    expect(without(merged, added)).toBe(
      without(THEIRS.replace('current-context: work', 'current-context: sandbar-dev'), added),
    );
    expect(parse(merged)).toMatchObject({
      'current-context': 'sandbar-dev',
      clusters: [{ name: 'work' }, { name: 'sandbar-dev' }],
    });
  });

  it('is as before when the entry has gone, but for the current context', () => {
    const merged = mergeKubeconfig({ file: FILE, text: THEIRS }, ENTRY);
    const removed = removeFromKubeconfig({ file: FILE, text: merged }, 'sandbar-dev');
    expect(removed).toBe(THEIRS.replace('current-context: work', 'current-context: ""'));
  });

  it('keeps the current context of somebody who has moved on', () => {
    const merged = mergeKubeconfig({ file: FILE, text: THEIRS }, ENTRY);
    const moved = merged.replace('current-context: sandbar-dev', 'current-context: work');
    expect(removeFromKubeconfig({ file: FILE, text: moved }, 'sandbar-dev')).toBe(THEIRS);
  });

  it('does not change when it has the entry already, nor when there is nothing to remove', () => {
    for (const text of [THEIRS, INDENTED, '', '# nothing yet\n', OURS]) {
      const merged = mergeKubeconfig({ file: FILE, text }, ENTRY);
      expect(mergeKubeconfig({ file: FILE, text: merged }, ENTRY)).toBe(merged);
      expect(parse(merged)).toMatchObject({ 'current-context': 'sandbar-dev', kind: 'Config' });
    }
    expect(removeFromKubeconfig({ file: FILE, text: THEIRS }, 'sandbar-dev')).toBeUndefined();
  });

  it('keeps its own indentation and line ends', () => {
    const merged = mergeKubeconfig({ file: FILE, text: INDENTED.replaceAll('\n', '\r\n') }, ENTRY);
    expect(merged.startsWith(INDENTED.slice(0, INDENTED.indexOf('contexts')).replaceAll('\n', '\r\n'))).toBe(true);
    expect(merged.replaceAll('\r\n', '')).not.toContain('\n');
  });

  it('gets new access over old, and keeps the namespace that the user has chosen', () => {
    const old = OURS.replace('    user: sandbar-dev', '    namespace: shop\n    user: sandbar-dev')
      .replace('    server:', '    insecure-skip-tls-verify: true\n    server:')
      .replace('    client-key-data: S0VZ', '    token: old');
    const merged: unknown = parse(mergeKubeconfig({ file: FILE, text: old }, ENTRY));
    const fresh = parse(OURS) as { contexts: { context: object }[] };
    fresh.contexts[0]!.context = { ...fresh.contexts[0]!.context, namespace: 'shop' };
    expect(merged).toEqual(fresh);
  });

  it.each([
    ['clusters: [', ':1:'],
    ['a: b\na: c', ':2:1'],
    ['- a', ':1:1'],
    ['a: 1\nclusters: {}', ':2:11'],
    ['a: 1\n---\nb: 2', ':2:1'],
  ])('that is none is refused by its name: %j', (text, place) => {
    expect(() => mergeKubeconfig({ file: FILE, text }, ENTRY)).toThrow(`${FILE}${place}`);
  });
});

describe("the user's kubeconfig", () => {
  const list = '/home/ada/a:/home/ada/b::/home/ada/c';

  it('is the file that kubectl would write to', async () => {
    expect(await findKubeconfigFile(fakeHost())).toBe(FILE);
    expect(await findKubeconfigFile(fakeHost({}, { env: { KUBECONFIG: '' } }))).toBe(FILE);
    expect(await findKubeconfigFile(fakeHost({}, { env: { KUBECONFIG: list } }))).toBe('/home/ada/c');
    expect(await findKubeconfigFile(fakeHost({ '/home/ada/b': '' }, { env: { KUBECONFIG: list } }))).toBe(
      '/home/ada/b',
    );
    expect(await findKubeconfigFile(fakeHost({}, { env: { KUBECONFIG: 'here' } }))).toBe('/home/ada/app/here');
  });

  it('gets the entry with mode 0600, and loses it in every file that has it', async () => {
    const host = fakeHost(
      { '/home/ada/a': OURS, '/home/ada/b': OURS, '/home/ada/c': THEIRS },
      { env: { KUBECONFIG: list } },
    );
    expect(await removeKubeconfigEntry(host, 'sandbar-dev')).toEqual(['/home/ada/a', '/home/ada/b']);
    expect(contentOf(host, '/home/ada/c')).toBe(THEIRS);
    expect(await addKubeconfigEntry(host, ENTRY)).toBe('/home/ada/a');
    expect(host.files.get('/home/ada/a')?.mode).toBe(0o600);
    expect(parse(contentOf(host, '/home/ada/a') ?? '')).toEqual(parse(OURS));
    expect([...host.files.keys()].filter((file) => file.endsWith('.lock'))).toEqual([]);
  });

  it('is left untouched when it is no kubeconfig', async () => {
    const host = fakeHost({ [FILE]: 'clusters: [' });
    await expect(addKubeconfigEntry(host, ENTRY)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    expect([...host.files.keys()]).toEqual([FILE]);
    expect(contentOf(host, FILE)).toBe('clusters: [');
  });

  it('is written once its lock is free', async () => {
    const lock = `${FILE}.lock`;
    const waits: number[] = [];
    const host = fakeHost(
      { [lock]: '' },
      {
        findAgeMs: () => Promise.resolve(1_000),
        waitForRemoval: (file, { timeoutMs }) => {
          waits.push(timeoutMs);
          host.files.delete(file);
          return Promise.resolve();
        },
      },
    );
    await addKubeconfigEntry(host, ENTRY);
    expect(waits).toEqual([4_000]);
    expect(contentOf(host, FILE)).toBe(OURS);
  });

  it('is written over a lock that nobody holds any more', async () => {
    const lock = `${FILE}.lock`;
    const dead = fakeHost({ [lock]: '99999\n' });
    await addKubeconfigEntry(dead, ENTRY);
    expect(dead.files.has(lock)).toBe(false);

    const unreadable = fakeHost({ [lock]: '' }, { findAgeMs: () => Promise.resolve(60_000) });
    const readFile = unreadable.readFile.bind(unreadable);
    unreadable.readFile = (file) => (file === lock ? Promise.reject(new Error('EACCES')) : readFile(file));
    await addKubeconfigEntry(unreadable, ENTRY);
    expect(contentOf(unreadable, FILE)).toBe(OURS);
  });
});
