/** The engine itself goes away and comes back; nobody calls the command line. */
import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { canRestartEngine, restartEngine } from '../fixtures/engine-restart.ts';
import { echoApp, echoScript, ingress, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { createSandbox, eventually } from './support.ts';

/** Below those that the kernel gives to clients. */
const PUBLISHED = 18_480;

describe.skipIf(!canRestartEngine)('a cluster whose engine is restarted', () => {
  const sandbox = createSandbox('engine');

  it('is back and answers by itself, with the same containers, pods and data', async () => {
    await sandbox.writeConfig('objectStore: { buckets: [kept] }\n');
    await sandbox.up();
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
    expect(await sandbox.containerIds()).toEqual(containers);
    expect(await sandbox.ports()).toEqual(ports);
    expect(await sandbox.must(['bucket', 'ls'])).toContain('kept');
    expect((await sandbox.up()).steps).toEqual([]);
  });
});
