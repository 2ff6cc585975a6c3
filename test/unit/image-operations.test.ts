import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import type { SandbarEvent } from '../../src/model/events.ts';
import { RUNTIME_IMAGES, type ImageBuilder, type ImagePlan } from '../../src/model/images.ts';
import type { ContainerSummary, EngineInfo, Runtime } from '../../src/model/ports.ts';
import { prepareKubectl } from '../../src/operations/kubectl.ts';
import { Machine } from '../builders/machine.ts';
import { FakeHost } from '../fakes/fake-host.ts';
import {
  buildImages,
  foreseeImages,
  listImages,
  publishImages,
  resolveImages,
  type ImagePorts,
} from '../../src/operations/images.ts';

/** An engine's images in memory, and a registry that others can see. */
class FakeImages implements ImageBuilder {
  readonly images = new Set<string>();
  readonly registry = new Set<string>();
  readonly calls: string[] = [];

  listSources() {
    const paths = ['base', 'builder', ...RUNTIME_IMAGES].map((name) => `${name}/Dockerfile`);
    return Promise.resolve(paths.map((path) => ({ path, isExecutable: false, digest: path })));
  }

  findImage(ref: string) {
    return Promise.resolve(this.images.has(ref) ? { id: `id of ${ref}`, sizeBytes: 1000 } : undefined);
  }

  tag(ref: string, newRef: string) {
    if (!this.images.has(ref)) return Promise.reject(new Error(`no image ${ref}`));
    this.images.add(newRef);
    return Promise.resolve();
  }

  pull(ref: string) {
    if (!this.registry.has(ref)) return Promise.reject(new SandbarError('IMAGE_UNAVAILABLE', `no ${ref}`));
    this.calls.push(`pull ${nameOf(ref)}`);
    this.images.add(ref);
    return Promise.resolve();
  }

  push(ref: string) {
    this.registry.add(ref);
    this.calls.push(`push ${nameOf(ref)}`);
    return Promise.resolve();
  }

  provideBase(plan: ImagePlan) {
    return this.build(plan);
  }

  build(plan: ImagePlan) {
    for (const ref of Object.values(plan.buildArguments)) {
      if (ref.includes('sandbar/') && !this.images.has(ref)) return Promise.reject(new Error(`no image ${ref}`));
    }
    this.calls.push(`build ${plan.name}`);
    this.images.add(plan.ref);
    return Promise.resolve();
  }
}

const nameOf = (ref: string): string => ref.replace(/^.*\/([a-z-]+):.*$/, '$1');

function portsWith(images: ImageBuilder, containers: readonly Partial<ContainerSummary>[] = []): ImagePorts {
  return {
    images,
    runtime: {
      info: () => Promise.resolve({ architecture: 'x86_64' } as EngineInfo),
      listContainers: () => Promise.resolve(containers),
    } as unknown as Runtime,
    host: new FakeHost(),
    clock: { now: () => 0, sleep: () => Promise.resolve() },
  };
}

const collect = (): { events: SandbarEvent[]; emit: (event: SandbarEvent) => void } => {
  const events: SandbarEvent[] = [];
  return { events, emit: (event) => events.push(event) };
};

describe('resolveImages', () => {
  it('builds what is missing, with what it is built from, each once', async () => {
    const images = new FakeImages();
    await resolveImages(portsWith(images), collect().emit, { names: ['dns', 'agent'] });
    expect(images.calls.toSorted()).toEqual(['build agent', 'build base', 'build builder', 'build dns']);
  });

  it('does nothing for images that are present', async () => {
    const images = new FakeImages();
    const first = await resolveImages(portsWith(images), collect().emit, { names: RUNTIME_IMAGES });
    images.calls.length = 0;
    const { events, emit } = collect();
    expect(await resolveImages(portsWith(images), emit, { names: RUNTIME_IMAGES })).toEqual(first);
    expect(images.calls).toEqual([]);
    expect(events).toEqual([]);
  });

  it('pulls what the repository has instead of building it', async () => {
    const publisher = new FakeImages();
    await publishImages(portsWith(publisher), collect().emit, { repository: 'registry.example/team' });
    const images = new FakeImages();
    publisher.registry.forEach((ref) => images.registry.add(ref));
    const refs = await resolveImages(portsWith(images), collect().emit, {
      names: ['dns', 'ingress'],
      repository: 'registry.example/team',
    });
    expect(images.calls.toSorted()).toEqual(['pull dns', 'pull ingress']);
    expect([...refs.values()].every((ref) => images.images.has(ref))).toBe(true);
  });

  it('builds an image once for two that want it at the same time', async () => {
    const images = new FakeImages();
    const ports = portsWith(images);
    const resolve = () => resolveImages(ports, collect().emit, { names: ['dns'] });
    const [first, second] = await Promise.all([resolve(), resolve()]);
    expect(first).toEqual(second);
    expect(images.calls).toEqual(['build base', 'build builder', 'build dns']);
  });

  it('warns and builds when the repository does not have an image', async () => {
    const images = new FakeImages();
    const { events, emit } = collect();
    await resolveImages(portsWith(images), emit, { names: ['dns'], repository: 'registry.example/team' });
    expect(images.calls).toEqual(['build base', 'build builder', 'build dns']);
    expect(events.filter((event) => event.type === 'warning')).toHaveLength(1);
  });

  it('builds nothing more once it is interrupted', async () => {
    const images = new FakeImages();
    const controller = new AbortController();
    const emit = (event: SandbarEvent): void => {
      if (event.type === 'phase-finished') controller.abort(new SandbarError('INTERRUPTED', 'interrupted'));
    };
    const resolving = resolveImages(portsWith(images), emit, { names: ['dns'], signal: controller.signal });
    await expect(resolving).rejects.toMatchObject({ code: 'INTERRUPTED' });
    expect(images.calls).toEqual(['build base']);
  });
});

describe('foreseeImages', () => {
  it('names what would be built, and builds nothing', async () => {
    const images = new FakeImages();
    const { events, emit } = collect();
    const refs = await foreseeImages(portsWith(images), emit, { names: ['dns'] });
    expect(images.calls).toEqual([]);
    expect(events).toEqual([{ type: 'notice', text: 'image dns is missing: it would be built first' }]);
    expect(await resolveImages(portsWith(images), emit, { names: ['dns'] })).toEqual(refs);
  });
});

describe('images of another version of Kubernetes', () => {
  it('are built, listed and published beside those of the default', async () => {
    const images = new FakeImages();
    const ports = portsWith(images);
    const names = ['control-plane', 'dns'] as const;
    const ours = await buildImages(ports, collect().emit, { names });
    images.calls.length = 0;
    const theirs = await buildImages(ports, collect().emit, { names, kubernetes: '1.35' });
    expect(images.calls).toEqual(['build control-plane']);
    expect(theirs.get('dns')).toBe(ours.get('dns'));
    const present = (await listImages(ports, '1.35')).filter(({ isPresent }) => isPresent).map(({ ref }) => ref);
    expect(present.toSorted()).toEqual([...theirs.values()].toSorted());
    await publishImages(ports, collect().emit, { repository: 'registry.example/team', kubernetes: '1.35' });
    const tagOf = (ref = ''): string => ref.replace(/^.*:/, '');
    const published = [...images.registry].find((ref) => nameOf(ref) === 'control-plane');
    expect(tagOf(published)).toContain(tagOf(theirs.get('control-plane')));
  });
});

describe('kubectl', () => {
  it('is of the version that the cluster has, however slow its API is', async () => {
    const machine = new Machine();
    await machine.up();
    machine.runtime.readImageFile = () => Promise.resolve(Buffer.from('kubectl'));
    const ports = { ...machine.ports, images: new FakeImages() };
    const tagOf = async (): Promise<string | undefined> => {
      const options = { repository: undefined, signal: new AbortController().signal };
      return (await prepareKubectl(ports, 'dev', collect().emit, options)).kubectl.split('/').at(-2);
    };
    const ours = await tagOf();
    machine.cluster.answers.set('/version', { status: 200, body: '{"gitVersion":"v1.35.1"}' });
    const theirs = await tagOf();
    expect(theirs).not.toBe(ours);
    machine.cluster.answers.set('/version', { status: 0, body: '' });
    expect(await tagOf()).toBe(ours);
    const record = { version: 1, file: null, flags: {}, kubernetes: 'v1.35.1' };
    await machine.runtime.writeFile('sandbar-dev-control-plane', {
      path: '/etc/sandbar/last-up.json',
      mode: 0o600,
      content: JSON.stringify(record),
    });
    expect(await tagOf()).toBe(theirs);
  });
});

describe('listImages', () => {
  it('tells missing images, and which containers use the others', async () => {
    const images = new FakeImages();
    const refs = await resolveImages(portsWith(images), collect().emit, { names: ['dns'] });
    const imageRef = refs.get('dns') ?? '';
    const listed = await listImages(portsWith(images, [{ name: 'sandbar-dev-dns', imageRef }]));
    expect(listed.find((image) => image.name === 'dns')).toEqual({
      name: 'dns',
      ref: imageRef,
      isPresent: true,
      sizeBytes: 1000,
      usedBy: ['sandbar-dev-dns'],
    });
    expect(listed.filter((image) => !image.isPresent)).toHaveLength(RUNTIME_IMAGES.length - 1);
  });
});
