/** A mount is written into `sandbar.yaml` as a person would add it, and nothing else of the file changes. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import type { BindVolume } from '../../src/config/mount-syntax.ts';
import { formatSource, saveMount } from '../../src/config/save-mount.ts';
import { formatDiagnostic } from '../../src/model/errors.ts';
import { formatWorkload } from '../../src/model/mounts.ts';
import { fakeHost } from '../builders/host.ts';

const FILE = '/home/ada/app/sandbar.yaml';

const bind = (source: string, target: string, changes: Partial<BindVolume> = {}): BindVolume => ({
  kind: 'bind',
  source,
  target,
  isReadOnly: false,
  createsSource: true,
  excluded: [],
  ...changes,
});

const SRC = bind('./src', '/app/src');

describe('a saved mount', () => {
  it.each<[string, string | undefined, string]>([
    ['a file that is not there', undefined, 'mounts:\n  deployment/web:\n    - ./src:/app/src\n'],
    ['an empty file', '', 'mounts:\n  deployment/web:\n    - ./src:/app/src\n'],
    ['comments alone', '# mine', '# mine\nmounts:\n  deployment/web:\n    - ./src:/app/src\n'],
    [
      'a file without mounts',
      'name:   dev   # the name\n\nports: {http: 8080}\n# the end\n',
      'name:   dev   # the name\n\nports: {http: 8080}\n# the end\nmounts:\n  deployment/web:\n    - ./src:/app/src\n',
    ],
    ['a file without its last line end', 'name: dev', 'name: dev\nmounts:\n  deployment/web:\n    - ./src:/app/src\n'],
    [
      'a document with an end',
      '---\nname: dev # x\n...\n',
      '---\nname: dev # x\nmounts:\n  deployment/web:\n    - ./src:/app/src\n...\n',
    ],
    [
      'mounts of other workloads',
      'mounts: # all\n    sts/db: # db\n    - ./a:/a # one\n    # after\n\nname: dev\n',
      'mounts: # all\n    sts/db: # db\n    - ./a:/a # one\n    deployment/web:\n      - ./src:/app/src\n    # after\n\nname: dev\n',
    ],
    [
      'mounts of the workload, by another of its names',
      'mounts:\n  deploy/web:\n      - ./a:/a   # one\n      # two\nname: dev\n',
      'mounts:\n  deploy/web:\n      - ./a:/a   # one\n      - ./src:/app/src\n      # two\nname: dev\n',
    ],
    [
      'a mount at the same target',
      'mounts:\n  deployment/web:\n    - ./a:/a\n    - "${SRC}:/app/src/:ro" # mine\n    - ./b:/b\n',
      'mounts:\n  deployment/web:\n    - ./a:/a\n    - ./src:/app/src # mine\n    - ./b:/b\n',
    ],
    [
      'a mount in the long syntax at the same target',
      'mounts:\n  deployment/web:\n    - type: bind\n      source: ./a # x\n      target: /app/src # y\n    # b\n    - ./b:/b\n',
      'mounts:\n  deployment/web:\n    - ./src:/app/src # y\n    # b\n    - ./b:/b\n',
    ],
    [
      'keys without values',
      'mounts: # none yet\nname: dev\n',
      'mounts: # none yet\n  deployment/web:\n    - ./src:/app/src\nname: dev\n',
    ],
    ['a workload without mounts', 'mounts:\n  deployment/web:\n', 'mounts:\n  deployment/web:\n    - ./src:/app/src\n'],
    ['a key of null', 'mounts: null # x\n', 'mounts: {"deployment/web":["./src:/app/src"]} # x\n'],
    ['braces', 'mounts: { pod/a: [] } # x\n', 'mounts: {"deployment/web":["./src:/app/src"],  pod/a: [] } # x\n'],
    ['empty braces', 'mounts: {}\n', 'mounts: {"deployment/web":["./src:/app/src"]}\n'],
    [
      'brackets',
      'mounts: { deployment/web: [ ./a:/a, ] }\n',
      'mounts: { deployment/web: ["./src:/app/src",  ./a:/a, ] }\n',
    ],
    ['JSON', '{"name": "dev"}\n', '{"mounts":{"deployment/web":["./src:/app/src"]}, "name": "dev"}\n'],
    [
      'an anchor',
      'mounts:\n  deployment/web: &web # x\n    - &a ./a:/a\n    - &b ./b:/app/src\n  pod/a: *web\n',
      'mounts:\n  deployment/web: &web # x\n    - &a ./a:/a\n    - &b ./src:/app/src\n  pod/a: *web\n',
    ],
    [
      'texts of several lines',
      'mounts:\n  deployment/web:\n    - |-\n      ./a:/a\n\nname: >\n  dev\n\n',
      'mounts:\n  deployment/web:\n    - |-\n      ./a:/a\n    - ./src:/app/src\n\nname: >\n  dev\n\n',
    ],
    [
      'braces of several lines',
      '{\n  "mounts": {\n    "deployment/web":\n  }\n}\n',
      '{\n  "mounts": {\n    "deployment/web": ["./src:/app/src"]\n  }\n}\n',
    ],
    ['a null within braces', '{ mounts: }\n', '{ mounts: {"deployment/web":["./src:/app/src"]}}\n'],
    [
      'lines that end as on Windows',
      'mounts:\r\n  deployment/web:\r\n    - ./a:/a\r\n',
      'mounts:\r\n  deployment/web:\r\n    - ./a:/a\r\n    - ./src:/app/src\r\n',
    ],
  ])('is added to %s', (_, text, expected) => {
    expect(saveMount(text, 'deployment/web', SRC)).toBe(expected);
  });

  it('is written in the long syntax where the short one cannot say it', () => {
    const volume = bind('./a: $b', '/app', { isReadOnly: true, createsSource: false, excluded: ['node_modules'] });
    expect(saveMount('mounts:\n  pod/a:\n  - ./x:/x\n', 'pod/a', volume)).toBe(`mounts:
  pod/a:
  - ./x:/x
  - type: bind
    source: "./a: $$b"
    target: /app
    read_only: true
    bind:
      create_host_path: false
    exclude:
      - node_modules
`);
  });

  it.each([
    ['{{{', 'it is not valid YAML'],
    ['- a\n', 'it is not a mapping'],
    ['{ mounts }\n', 'its form is not understood'],
    ['x-m: &m { pod/a: [] }\nmounts: *m\n', 'its mounts are written in a way that cannot be added to'],
    ['x-m: &m []\nmounts: { deployment/web: *m }\n', 'its mounts of deployment/web are not written as a list'],
  ])('is not added to %j, and the person is told what to write', (text, reason) => {
    expect(() => saveMount(text, 'deployment/web', SRC)).toThrow(
      expect.objectContaining({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining(reason) as string,
        hint: 'write it there yourself, below mounts: {"deployment/web":["./src:/app/src"]}',
      }),
    );
  });

  it.each([
    ['/home/ada/app/src', '/home/ada/app', './src'],
    ['/home/ada/app', '/home/ada/app', '.'],
    ['/home/ada/apple', '/home/ada/app', '/home/ada/apple'],
    ['/home/ada/app/..x', '/home/ada/app', './..x'],
    ['/srv/x', undefined, '/srv/x'],
  ])('has the source %s in %s as %s', (source, directory, written) => {
    expect(formatSource(source, directory)).toBe(written);
  });

  const part = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 8 })
    .filter((text) => !/[/\\\0]/.test(text) && text !== '.' && text !== '..');
  const below = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
  const plainBelow = below.filter((text) => !/[:*?]/.test(text));
  const volumes = fc.record({
    kind: fc.constant('bind' as const),
    source: below.map((path) => `./${path}`),
    target: plainBelow.map((path) => `/app/${path}`),
    isReadOnly: fc.boolean(),
    createsSource: fc.boolean(),
    excluded: fc.uniqueArray(plainBelow, { maxLength: 2 }),
  });
  const texts = fc.constantFrom(
    '',
    'name: dev # x\n',
    '# a\nmounts:\n  deploy/web:\n    - "${HOME:-./x}:/x" # b\n    # c\n  job/x: []\nname: dev\n',
    'mounts: { deploy/web: [ ./x:/x ] } # d\n',
    'mounts:\n  sts/db:\n  - type: bind\n    source: ./x\n    target: /x\n\n\nname: dev',
    '{ name: dev }',
  );

  it('is what is loaded again, and every other line is as before', async () => {
    await fc.assert(
      fc.asyncProperty(
        texts,
        fc.uniqueArray(volumes, { minLength: 1, maxLength: 3, selector: ({ target }) => target }),
        async (text, added) => {
          const saved = added.reduce<string>((before, volume) => saveMount(before, 'deployment/web', volume), text);
          for (const line of text.split('\n').filter((before) => !/[{}]/.test(before))) {
            expect(saved.split('\n')).toContain(line);
          }
          const sources = added.map(({ source }): [string, string] => [`/home/ada/app/${source.slice(2)}/x`, '']);
          const loaded = await loadConfig(
            fakeHost(Object.fromEntries([...sources, ['/home/ada/app/x/x', ''], [FILE, saved]])),
            {},
          );
          if (loaded.kind === 'invalid') throw new Error(loaded.diagnostics.map(formatDiagnostic).join('\n'));
          for (const volume of added) {
            const found = loaded.spec.mounts.find(
              ({ target }) =>
                target.kind === 'workload' &&
                target.path === volume.target &&
                formatWorkload(target.workload) === 'deployment/web',
            );
            const { isReadOnly, createsSource, excluded, source: writtenSource } = volume;
            expect(found).toMatchObject({ writtenSource, isReadOnly, createsSource, excluded });
            expect(saveMount(saved, 'deployment/web', volume)).toBe(saved);
          }
        },
      ),
    );
  });
});
