/** The engine itself goes away and comes back; nobody calls the command line. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { echoApp, echoScript, ingress, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { createSandbox, eventually } from './support.ts';

const PID_FILE = '/var/run/docker.pid';

/** Only root may restart an engine, and only one of this machine's own. */
const canRestartEngine = process.getuid?.() === 0 && existsSync(PID_FILE);

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
    const [containers, ports] = await Promise.all([sandbox.containerIds(), sandbox.ports()]);

    await restartEngine();

    await eventually('status is ready', async () => (await sandbox.run(['status'])).exitCode === 0 || undefined);
    await eventually('the app is served again', async () => {
      const url = `http://one.localhost:${String(ports.http)}/`;
      const { stdout } = await execa('curl', ['--silent', '--fail', url], { reject: false });
      return stdout.includes('"name":"one"') || undefined;
    });
    expect(await sandbox.containerIds()).toEqual(containers);
    expect(await sandbox.ports()).toEqual(ports);
    expect(await sandbox.must(['bucket', 'ls'])).toContain('kept');
    expect((await sandbox.up()).steps).toEqual([]);
  });

  async function restartEngine(): Promise<void> {
    if (existsSync('/run/systemd/system')) {
      await execa('systemctl', ['restart', 'docker']);
      return;
    }
    const pid = (await readFile(PID_FILE, 'utf8')).trim();
    const [file = 'dockerd', ...args] = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0').slice(0, -1);
    process.kill(Number(pid), 'SIGTERM');
    await eventually('the engine has ended', () => Promise.resolve(!existsSync(`/proc/${pid}`) || undefined));
    const log = openSync(join(tmpdir(), 'sandbar-e2e-dockerd.log'), 'a');
    spawn(file, args, { detached: true, stdio: ['ignore', log, log] }).unref();
    closeSync(log);
    await eventually('the engine answers', async () => {
      try {
        await sandbox.docker.ping();
        return true;
      } catch {
        return undefined;
      }
    });
  }
});
