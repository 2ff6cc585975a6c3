import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { provideEngine } from '../../src/adapters/engine-start.ts';
import type { SandbarEvent } from '../../src/model/events.ts';
import { planExampleImage, type ImageSource } from '../../src/model/images.ts';
import type { Host } from '../../src/model/ports.ts';

const source = (path: string, digest = 'a'): ImageSource => ({ path, isExecutable: false, digest });

it("names an example's image by what is in it, whatever else lies in its folder", () => {
  const named = (sources: readonly ImageSource[], baseRef = 'sandbar/base:1'): string =>
    planExampleImage(sources, { name: 'gallery-web', baseRef }).ref;
  const own = [source('src/server.js'), source('Dockerfile'), source('package-lock.json')];
  const ref = named(own);
  expect(ref).toMatch(/^sandbar-example\/gallery-web:[0-9a-f]{12}$/);
  expect(named([source('node_modules/a/index.js'), source('README.md'), ...own.toReversed()])).toBe(ref);
  expect(named([...own, source('src/public/app.js')])).not.toBe(ref);
  expect(named([source('src/server.js', 'b'), ...own.slice(1)])).not.toBe(ref);
  expect(named(own, 'sandbar/base:2')).not.toBe(ref);
});

it('installs no engine where DOCKER_HOST names one', async () => {
  const host = {
    platform: 'linux',
    isRoot: true,
    homeDirectory: '/nonexistent',
    env: { DOCKER_HOST: 'unix:///nonexistent/docker.sock' },
  } as unknown as Host;
  const events: SandbarEvent[] = [];
  const provided = provideEngine(host, (event) => events.push(event), new AbortController().signal);
  await expect(provided).rejects.toMatchObject({ code: 'DOCKER_MISSING' });
  expect(events).toEqual([]);
});

it('says which tiers of tests there are', () => {
  const script = fileURLToPath(new URL('../../bin/test.js', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [script, 'unti'], { encoding: 'utf8' });
  expect(stderr).toContain('there are no tests "unti": there are unit, contract, integration, e2e');
  expect(status).toBe(2);
});
