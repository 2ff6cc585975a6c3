/** The quickstart, and the app that it leaves behind. */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, it } from 'vitest';
import { checkEdits, checkGallery, readCaptions } from './gallery.ts';
import { listMounts, podsOf } from './mounts.ts';
import { createSandbox, eventually, ROOT } from './support.ts';

type Quickstart = {
  readonly cluster: string;
  readonly url: string;
  readonly objectStoreEndpoint: string;
  readonly pictures: number;
};

describe('quickstart', () => {
  const sandbox = createSandbox('gallery');
  const quickstart = async (): Promise<Quickstart> =>
    JSON.parse(await sandbox.must(['quickstart', '-o', 'json'])) as Quickstart;
  let url = '';

  it('brings up a cluster with the gallery on it', async () => {
    const started = await quickstart();
    const ports = await sandbox.ports();
    expect(started).toMatchObject({
      cluster: sandbox.name,
      objectStoreEndpoint: `http://127.0.0.1:${String(ports.objectStore)}`,
      pictures: 1,
    });
    expect(started.url).toMatch(/^http:\/\/gallery\.localhost(:\d+)?$/);
    ({ url } = started);
  });

  it('serves a page that takes a picture and shows it, from two pods that know the same', async () => {
    const { pods } = await checkGallery(url);
    expect(pods).toHaveLength(2);
  });

  it('has its source mounted: an open page shows every edit by itself, and no pod is replaced', async () => {
    expect(await listMounts(sandbox)).toMatchObject([
      { workload: 'deployment/captions', target: '/app/src', state: 'attached', events: 'native' },
      { workload: 'deployment/web', target: '/app/src', state: 'attached', events: 'native' },
    ]);
    const pods = async (): Promise<unknown> => Promise.all(['web', 'captions'].map((app) => podsOf(sandbox, app)));
    const before = await pods();
    const took = await checkEdits(url, join(ROOT, 'docs', 'examples', 'gallery'));
    process.stderr.write(`edits were seen after ${JSON.stringify(took)} ms\n`);
    expect(Math.max(...Object.values(took))).toBeLessThan(10_000);
    expect(await pods()).toEqual(before);
  });

  it('keeps captions on the claim when their pod is replaced', async () => {
    const captions = await readCaptions(url);
    await sandbox.mustKubectl(['delete', 'pod', '-l', 'app=captions', '--wait=true']);
    await sandbox.mustKubectl(['wait', '--for=condition=Available', 'deployment/captions', '--timeout=60s']);
    await eventually('the same captions', async () => {
      const again = await readCaptions(url);
      return isDeepStrictEqual(again, captions) ? true : undefined;
    });
  });

  it('changes nothing when it is run again, in seconds', async () => {
    const before = await sandbox.containerIds();
    const pods = async (): Promise<string> => sandbox.mustKubectl(['get', 'pods', '-o', 'name']);
    const podsBefore = await pods();
    const startedAt = performance.now();
    expect((await quickstart()).url).toBe(url);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(await sandbox.containerIds()).toEqual(before);
    expect(await pods()).toBe(podsBefore);
  });
});
