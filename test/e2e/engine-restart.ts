/** Ends the engine and starts it again, as an update of it or of the machine does. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { eventually, type Sandbox } from './support.ts';

const PID_FILE = '/var/run/docker.pid';

/** Only root may restart an engine, and only one of this machine's own. */
export const canRestartEngine = process.getuid?.() === 0 && existsSync(PID_FILE);

export async function restartEngine(sandbox: Sandbox): Promise<void> {
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
