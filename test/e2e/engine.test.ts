/** The engine itself goes away and comes back; nobody calls the command line. */
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import { canRestartEngine, restartEngine } from '../fixtures/engine-restart.ts';
import { echoApp, echoScript, ingress, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { createSandbox, eventually } from './support.ts';

/** Below those that the kernel gives to clients. */
const PUBLISHED = 18_480;

describe.skipIf(!canRestartEngine)('a cluster whose engine is restarted', () => {
  const sandbox = createSandbox('engine');

  async function push(name: string): Promise<void> {
    const runtime = new DockerRuntime(environment);
    await provideTestImage(runtime);
    await runtime.close();
    const [repo = '', tag = ''] = name.split(/:(?=[^:]*$)/);
    await sandbox.docker.getImage(TEST_IMAGE).tag({ repo, tag });
    const image = sandbox.docker.getImage(name);
    const output = await text((await image.push({ authconfig: { username: '', password: '' } })) as Readable);
    expect(output).not.toContain('"error"');
    await image.remove();
  }

  /** A pod for which the node asks the registry. */
  async function pull(name: string, image: string): Promise<void> {
    const flags = ['--image', image, '--image-pull-policy=Always', '--restart=Never', '--command'];
    await sandbox.mustKubectl(['run', name, ...flags, '--', '/bin/busybox', 'true']);
    await sandbox.mustKubectl(['wait', `pod/${name}`, '--for=jsonpath={.status.phase}=Succeeded', '--timeout=60s']);
  }

  it('is back and answers by itself, with the same containers, pods and data', async () => {
    await sandbox.writeConfig(
      [
        'objectStore: { buckets: [kept] }',
        // Its copies are of what was pushed to it.
        'registry: { mirrors: [registry.test] }',
        `mirrors: { registry.test: ["http://${sandbox.registryName}:5000"] }`,
      ].join('\n'),
    );
    const { events } = await sandbox.up();
    const result = events.find((event) => event.type === 'result')?.['result'] as { registry: string };
    const pushed = `${result.registry}/base:v1`;
    await push(pushed);
    await pull('before', 'registry.test/base:v1');
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    const objects = [
      echoScript(),
      ...echoApp('one'),
      ingress('one', [{ host: 'one.localhost', paths: [{ path: '/', service: 'one' }] }]),
    ];
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: list });
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', '--timeout=60s']);
    await sandbox.must(['port', 'add', String(PUBLISHED), 'service/one:http']);
    const [containers, ports] = await Promise.all([sandbox.containerIds(), sandbox.ports()]);

    await restartEngine(sandbox.docker);

    await eventually('status is ready', async () => (await sandbox.run(['status'])).exitCode === 0 || undefined);
    await eventually('the app is served again', async () => {
      const url = `http://one.localhost:${String(ports.http)}/`;
      const { stdout } = await execa('curl', ['--silent', '--fail', url], { reject: false });
      return stdout.includes('"name":"one"') || undefined;
    });
    await eventually('its published port leads to it again', async () => {
      const url = `http://127.0.0.1:${String(PUBLISHED)}/`;
      const { stdout } = await execa('curl', ['--silent', '--fail', url], { reject: false });
      return stdout.includes('"name":"one"') || undefined;
    });
    await pull('pushed', pushed);
    await pull('copied', 'registry.test/base:v1');
    expect(await sandbox.containerIds()).toEqual(containers);
    expect(await sandbox.ports()).toEqual(ports);
    expect(await sandbox.must(['bucket', 'ls'])).toContain('kept');
    expect((await sandbox.up()).steps).toEqual([]);
  });
});
