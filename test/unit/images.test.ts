import { describe, expect, it } from 'vitest';
import {
  getPlan,
  planImages,
  publishedRef,
  RUNTIME_IMAGES,
  type ImageName,
  type ImagePlans,
  type ImageSource,
} from '../../src/model/images.ts';

const platform = { engineArchitecture: 'amd64', kubectlTarget: { os: 'linux', architecture: 'amd64' } };
const allNames: readonly ImageName[] = ['base', 'builder', ...RUNTIME_IMAGES];

const sources: readonly ImageSource[] = [
  'base/dpkg.cfg',
  'builder/Dockerfile',
  'lib/container/api.go',
  'kubernetes/go.mod',
  'kubernetes/versions/1.35/go.mod',
  'containerd/go.mod',
  'README.md',
  'lib/container/api_test.go',
  ...RUNTIME_IMAGES.map((name) => `${name}/Dockerfile`),
].map((path) => ({ path, isExecutable: false, digest: `digest of ${path}` }));

function renamedBy(change: { sources?: readonly ImageSource[]; platform?: typeof platform }): readonly ImageName[] {
  const before = planImages(sources, platform);
  const after = planImages(change.sources ?? sources, change.platform ?? platform);
  return allNames.filter((name) => getPlan(before, name).ref !== getPlan(after, name).ref);
}

const changed = (path: string, change: Partial<ImageSource> = { digest: 'another' }): readonly ImageSource[] =>
  sources.map((source) => (source.path === path ? { ...source, ...change } : source));

describe('an image is named by what it is made from', () => {
  it.each<[string, readonly ImageName[]]>([
    ['dns/Dockerfile', ['dns']],
    ['containerd/go.mod', ['agent']],
    ['kubernetes/go.mod', ['control-plane', 'agent', 'kubectl']],
    ['lib/container/api.go', RUNTIME_IMAGES.filter((name) => name !== 'registry')],
    ['builder/Dockerfile', ['builder', ...RUNTIME_IMAGES]],
    ['base/dpkg.cfg', allNames],
    ['lib/container/api_test.go', []],
    ['README.md', []],
  ])('a change of %s renames %j', (path, renamed) => {
    expect(renamedBy({ sources: changed(path) })).toEqual(renamed);
  });

  it('names the images of another version by its own module files, which the default does not have', () => {
    const of135 = (found: readonly ImageSource[]) => planImages(found, { ...platform, kubernetes: '1.35' });
    const after = changed('kubernetes/versions/1.35/go.mod');
    expect(renamedBy({ sources: after })).toEqual([]);
    const between = (one: ImagePlans, other: ImagePlans) =>
      allNames.filter((name) => getPlan(one, name).ref !== getPlan(other, name).ref);
    expect(between(of135(sources), of135(after))).toEqual(['control-plane', 'agent', 'kubectl']);
    expect(between(of135(sources), planImages(sources, platform))).toEqual(['control-plane', 'agent', 'kubectl']);
  });

  it('does not depend on the order in which files are found', () => {
    expect(renamedBy({ sources: sources.toReversed() })).toEqual([]);
  });

  it('counts a file that became executable', () => {
    expect(renamedBy({ sources: changed('dns/Dockerfile', { isExecutable: true }) })).toEqual(['dns']);
  });

  it('counts the engine’s architecture', () => {
    expect(renamedBy({ platform: { ...platform, engineArchitecture: 'arm64' } })).toEqual(allNames);
  });

  it('has another kubectl for another host, and the same rest', () => {
    const kubectlTarget = { os: 'darwin', architecture: 'arm64' };
    expect(renamedBy({ platform: { ...platform, kubectlTarget } })).toEqual(['kubectl']);
  });
});

describe('planImages', () => {
  it('builds an image from the images that its Dockerfile names', () => {
    const plans = planImages(sources, platform);
    const agent = getPlan(plans, 'agent');
    expect(agent.buildArguments).toEqual({
      BASE: getPlan(plans, 'base').ref,
      BUILDER: getPlan(plans, 'builder').ref,
    });
    expect(agent.dependsOn).toEqual(['base', 'builder']);
    // What a Dockerfile starts from must not be anybody's on Docker Hub.
    expect(agent.buildArguments['BASE']).toMatch(/^localhost\//);
    expect(agent.ref).toMatch(/^sandbar\/agent:[0-9a-f]{12}$/);
  });
});

describe('publishedRef', () => {
  it('puts the image’s own name and tag below the repository', () => {
    const dns = { ...getPlan(planImages(sources, platform), 'dns'), ref: 'sandbar/dns:0123456789ab' };
    expect(publishedRef('registry.example:5000/team/', dns)).toBe('registry.example:5000/team/dns:0123456789ab');
  });
});
