import { describe } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { FakeRuntime } from '../fakes/fake-runtime.ts';
import { environment, isDockerMissing, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import { describeRuntime } from './runtime-contract.ts';

describeRuntime('FakeRuntime', {
  prefix: 'sandbar-contract',
  imageRef: TEST_IMAGE,
  subnet: '10.213.91',
  port: 28591,
  createRuntime: () => {
    const runtime = new FakeRuntime();
    runtime.images.set(TEST_IMAGE, { output: ['first', 'second'] });
    return Promise.resolve(runtime);
  },
});

describe.skipIf(isDockerMissing)('with an engine', () => {
  describeRuntime('DockerRuntime', {
    prefix: 'sandbar-contract',
    imageRef: TEST_IMAGE,
    subnet: '10.213.91',
    port: 28591,
    createRuntime: async () => {
      const runtime = new DockerRuntime(environment);
      await provideTestImage(runtime);
      return runtime;
    },
  });
});
