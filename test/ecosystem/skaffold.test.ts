/** Skaffold's edit loop: it builds, deploys, copies what changes into pods that run, and builds again where it must. */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixture, untilAnswered } from '../e2e/ecosystem.ts';
import { provideFixtureImage, provideFixtureProgram } from '../e2e/fixture-images.ts';
import { createSandbox, eventually, ROOT } from '../e2e/support.ts';

const sandbox = createSandbox('skaffold');

function startSkaffold(skaffoldPath: string, args: readonly string[], options: { folder: string; path: string }) {
  const env = { ...sandbox.env, PATH: options.path, SKAFFOLD_UPDATE_CHECK: 'false' };
  return execa(skaffoldPath, args, { cwd: options.folder, env, reject: false, all: true });
}

describe('skaffold dev', () => {
  let folder: string;
  let url: string;
  let running: ReturnType<typeof startSkaffold>;
  let output = '';

  beforeAll(async () => {
    const skaffoldPath = await provideFixtureProgram(await provideFixtureImage('skaffold'), '/host/skaffold');
    await sandbox.up();
    url = `http://page.localhost:${String((await sandbox.ports()).http)}`;
    folder = join(sandbox.directory, 'app');
    await cp(fixture('skaffold-app'), folder, { recursive: true });
    const path = [dirname(await sandbox.kubectlPath()), process.env['PATH']].join(delimiter);
    const { data } = await sandbox.getObject('configmap', 'local-registry-hosting', '-n', 'kube-public');
    const registry = /^host: "?([^"\s]+)/m.exec(data['localRegistryHosting.v1'] ?? '')?.[1] ?? '';
    const args = ['dev', '--auto-build', '--auto-sync', '--auto-deploy', '--default-repo', `${registry}/skaffold`];
    // Else it tells its makers of every call.
    await mkdir(join(sandbox.home, '.skaffold'));
    await writeFile(join(sandbox.home, '.skaffold', 'config'), 'global: { collect-metrics: false }\n');
    running = startSkaffold(skaffoldPath, args, { folder, path });
    running.all.on('data', (chunk: Buffer) => (output += chunk.toString()));
  }, 1_800_000);

  afterAll(async () => {
    running.kill('SIGINT');
    await running;
    const artifacts = join(ROOT, '.sandbar', 'artifacts');
    await mkdir(artifacts, { recursive: true });
    await writeFile(join(artifacts, 'skaffold-dev.txt'), output);
  });

  const podNames = async (): Promise<string> =>
    sandbox.mustKubectl(['get', 'pods', '-l', 'app=page', '-o', 'jsonpath={.items[*].metadata.name}']);

  it('deploys what it has built', async () => {
    await untilAnswered(url, 'one first', { timeoutMs: 300_000 });
    await eventually('skaffold watches', () => Promise.resolve(output.includes('Watching for changes') || undefined));
  });

  it('copies a changed file into the pod that runs', async () => {
    const before = await podNames();
    await writeFile(join(folder, 'public', 'page.txt'), 'second');
    await untilAnswered(url, 'one second');
    expect(await podNames()).toBe(before);
  });

  it('builds and deploys again when the program changes', async () => {
    const file = join(folder, 'server.mjs');
    await writeFile(file, (await readFile(file, 'utf8')).replace("'one'", "'two'"));
    await untilAnswered(url, 'two second', { timeoutMs: 300_000 });
  });
});
