import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { formatDiagnostic } from '../../src/model/errors.ts';
import { parseManifest } from '../../src/model/manifests.ts';
import { fakeHost } from '../builders/host.ts';

const parsed = (content: string) => {
  const { objects, diagnostics } = parseManifest({ path: 'a.yaml', content });
  return { objects, problems: diagnostics.map(formatDiagnostic) };
};
const configMap = (name: string): string => `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n`;

describe('a manifest', () => {
  it('is read document by document, lists taken apart, empty ones left out', () => {
    const list = `apiVersion: v1\nkind: List\nitems:\n- ${configMap('c').replaceAll('\n', '\n  ')}`;
    const { objects, problems } = parsed(`# a comment\n---\n${configMap('a')}---\n---\n${configMap('b')}---\n${list}`);
    expect(problems).toEqual([]);
    expect(objects.map(({ object, line }) => [object.metadata.name, line])).toEqual([
      ['a', 3],
      ['b', 9],
      ['c', 17],
    ]);
    expect(parsed('').objects).toEqual([]);
  });

  it('is read as kubectl reads it', () => {
    const { objects } = parsed(
      `${configMap('a')}x: { mode: 0644, enabled: yes, kept: "off", time: 12:30, base: &b {k: v}, more: {<<: *b} }`,
    );
    expect(objects[0]?.object['x']).toMatchObject({
      mode: 420,
      enabled: true,
      kept: 'off',
      time: '12:30',
      more: { k: 'v' },
    });
  });

  it.each([
    ['kind: A\nmetadata: { name: a }', 'a.yaml:1:1: the object has no apiVersion'],
    ['apiVersion: v1\nkind: ""\nmetadata: { name: a }', 'a.yaml:2:1: the object has no kind'],
    ['apiVersion: v1\nkind: A\nmetadata: {}', 'a.yaml:3:1: the object has no metadata.name'],
    [
      'apiVersion: v1\nkind: A\nmetadata: { generateName: a- }',
      'a.yaml:3:1: the object has no metadata.name: generateName would make a new one on every up',
    ],
    ['just text', 'a.yaml:1:1: a Kubernetes object is a mapping with apiVersion, kind and metadata'],
    [
      'apiVersion: v1\nkind: A\nmetadata: { name: a, labels: { live: true } }',
      'a.yaml:3:32: labels are texts: live is true, write it in quotes',
    ],
    ['apiVersion: v1\nkind: [', 'a.yaml:2:8: '],
  ])('names what is wrong with it: %j', (content, expected) => {
    const { problems } = parsed(content);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(expected);
  });
});

describe('manifests of a configuration', () => {
  const load = (manifests: string, files: Readonly<Record<string, string>>) =>
    loadConfig(fakeHost({ '/home/ada/app/sandbar.yaml': `manifests: ${manifests}`, ...files }), {});

  it('are found by file, folder and pattern, each once, in the order in which they are named', async () => {
    const files = Object.fromEntries(
      ['k8s/b.yaml', 'k8s/a.yml', 'k8s/notes.md', 'k8s/deep/er/c.json', 'k8s/.hidden.yaml', 'first.yaml'].map(
        (file) => [
          `/home/ada/app/${file}`,
          file.endsWith('.json')
            ? JSON.stringify({ apiVersion: 'v1', kind: 'A', metadata: { name: file } })
            : configMap(file.replace(/\W/g, '-')),
        ],
      ),
    );
    const found = async (manifests: string): Promise<readonly string[]> => {
      const loaded = await load(manifests, files);
      return loaded.kind === 'valid' ? loaded.spec.manifests.map(({ path }) => path.replace('/home/ada/app/', '')) : [];
    };
    expect(await found('[first.yaml, k8s, "k8s/*.yaml"]')).toEqual(['first.yaml', 'k8s/a.yml', 'k8s/b.yaml']);
    expect(await found('["k8s/**/*.{json,yaml}"]')).toEqual(['k8s/b.yaml', 'k8s/deep/er/c.json']);
    expect(await found('["**/?.y*ml", ~/app/first.yaml]')).toEqual(['k8s/a.yml', 'k8s/b.yaml', 'first.yaml']);
  });

  it('are refused at their own place, and twice the same object at the second', async () => {
    const loaded = await load('[a.yaml, b.yaml]', {
      '/home/ada/app/a.yaml': configMap('same'),
      '/home/ada/app/b.yaml': `${configMap('same')}---\nkind: A\n`,
    });
    expect(loaded.kind === 'invalid' ? loaded.diagnostics.map(formatDiagnostic) : []).toEqual([
      'b.yaml:1: ConfigMap same is in a.yaml:1 already',
      'b.yaml:6:1: the object has no apiVersion',
      'b.yaml:6:1: the object has no metadata.name',
    ]);
  });
});
