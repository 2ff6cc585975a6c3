/** The images that upstream's suite runs, under the names that it uses, built on this machine. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createClock } from '../../src/adapters/clock.ts';
import { createHost } from '../../src/adapters/host.ts';
import { DockerImageBuilder } from '../../src/adapters/image-builder.ts';
import type { DockerRuntime } from '../../src/adapters/docker.ts';
import { hashOf } from '../../src/model/hash.ts';
import type { ImageBuild, ImageSource } from '../../src/model/images.ts';
import { resolveImages } from '../../src/operations/images.ts';

const REGISTRY = 'registry.k8s.io';
const TEST_REGISTRY = `${REGISTRY}/e2e-test-images`;

/** Stage of images/conformance/Dockerfile → the name in the suite (test/utils/image/manifest.go of its module). */
const TEST_IMAGES = {
  agnhost: `${TEST_REGISTRY}/agnhost:2.63.0`,
  'agnhost-previous': `${TEST_REGISTRY}/agnhost:2.55`,
  busybox: `${TEST_REGISTRY}/busybox:1.37.0-1`,
  etcd: `${REGISTRY}/etcd:3.6.8-0`,
  'glibc-dns-testing': `${TEST_REGISTRY}/glibc-dns-testing:2.0.0`,
  nautilus: `${TEST_REGISTRY}/nautilus:1.8`,
  nginx: `${TEST_REGISTRY}/nginx:1.15-4`,
  'nginx-new': `${TEST_REGISTRY}/nginx:1.27-0`,
  nonewprivs: `${TEST_REGISTRY}/nonewprivs:1.4`,
  nonroot: `${TEST_REGISTRY}/nonroot:1.5`,
  'sample-apiserver': `${TEST_REGISTRY}/sample-apiserver:1.29.2`,
} as const;

/** Name of the registry on the cluster's network; below `svc`, for which no proxy is asked. */
export const REGISTRY_HOST = 'images.conformance.svc';

/** `sandbar.yaml` of a cluster whose node knows that registry. */
export const CLUSTER_CONFIG = `mirrors: { ${REGISTRY}: ['http://${REGISTRY_HOST}'] }\n`;

/** What the Gateway API's suite runs (conformance/base/manifests.yaml of its module). */
const GATEWAY_TEST_IMAGES = {
  'echo-basic': 'gcr.io/k8s-staging-gateway-api/echo-basic:v20240412-v1.0.0-394-g40c666fd',
} as const;

/** Folders below images/ that the stages are in. */
type Folder = 'conformance' | 'gateway-conformance';

export type ConformanceImages = {
  /** Holds `e2e.test`, `ginkgo` and `kubectl`. */
  readonly suiteRef: string;
  /** Serves, on port 80, what the suite pulls in any case. */
  readonly registryRef: string;
  /** Names of the images that pods of the suite run. */
  readonly testRefs: readonly string[];
};

export type GatewayConformanceImages = {
  /** Holds `suite`. */
  readonly suiteRef: string;
  readonly testRefs: readonly string[];
};

type ProvideOptions = {
  readonly root: string;
  readonly onProgress: (text: string) => void;
  readonly signal?: AbortSignal;
};

/** Builds what is missing, and gives the images their names in the suite. */
export async function provideConformanceImages(
  runtime: DockerRuntime,
  options: ProvideOptions,
): Promise<ConformanceImages> {
  const stages = await openStages(runtime, 'conformance', options);
  const suiteRef = await stages.provide('suite');
  const registryRef = await stages.provide('registry');
  return { suiteRef, registryRef, testRefs: await stages.provideNamed(TEST_IMAGES) };
}

/** The same for the Gateway API's suite. */
export async function provideGatewayConformanceImages(
  runtime: DockerRuntime,
  options: ProvideOptions,
): Promise<GatewayConformanceImages> {
  const stages = await openStages(runtime, 'gateway-conformance', options);
  return { suiteRef: await stages.provide('suite'), testRefs: await stages.provideNamed(GATEWAY_TEST_IMAGES) };
}

type Stages = {
  provide(stage: string): Promise<string>;
  /** Stage → name that its image gets; returns the names. */
  provideNamed(names: Readonly<Record<string, string>>): Promise<readonly string[]>;
};

async function openStages(runtime: DockerRuntime, folder: Folder, options: ProvideOptions): Promise<Stages> {
  const { root, onProgress, signal } = options;
  const host = createHost();
  const images = new DockerImageBuilder({
    docker: await runtime.client(),
    imagesDirectory: join(root, 'images'),
    logDirectory: join(root, '.sandbar', 'conformance', 'logs'),
    env: process.env,
    homeDirectory: homedir(),
    isRoot: host.isRoot,
  });
  const parts = await resolveImages({ images, runtime, host, clock: createClock() }, () => undefined, {
    names: ['base', 'builder'],
    signal,
  });
  const sources = (await images.listSources()).filter(({ path }) => path.startsWith(`${folder}/`));
  const provide = async (stage: string): Promise<string> => {
    const builtFrom = { BASE: parts.get('base') ?? '', BUILDER: parts.get('builder') ?? '' };
    const build = planStage(folder, stage, sources, builtFrom);
    if ((await images.findImage(build.ref)) === undefined) {
      onProgress(`building ${stage}`);
      await images.build(build, { onProgress: () => undefined, signal });
    }
    return build.ref;
  };
  const provideNamed = async (names: Readonly<Record<string, string>>): Promise<readonly string[]> => {
    for (const [stage, name] of Object.entries(names)) await images.tag(await provide(stage), name);
    return Object.values(names);
  };
  return { provide, provideNamed };
}

function planStage(
  folder: Folder,
  stage: string,
  sources: readonly ImageSource[],
  parts: Readonly<Record<'BASE' | 'BUILDER', string>>,
): ImageBuild {
  const buildArguments = { ...parts, IMAGE: stage };
  const ordered = [...sources].sort((a, b) => (a.path < b.path ? -1 : 1));
  return {
    name: stage,
    ref: `sandbar-${folder}/${stage}:${hashOf({ sources: ordered, buildArguments })}`,
    sources: ordered,
    dockerfile: `${folder}/Dockerfile`,
    buildArguments,
  };
}
