import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Cluster } from '../../src/model/ports.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';

/** What every cluster adapter is held to. */
export function describeCluster(name: string, connect: () => Promise<Cluster>): void {
  describe(name, () => {
    let cluster: Cluster;
    const kind = { apiVersion: 'v1', kind: 'ConfigMap' };
    const labels = { 'sandbar.test/contract': 'cluster' };
    const labelSelector = 'sandbar.test/contract=cluster';
    const settings = (data: Readonly<Record<string, string>>, namespace = 'default'): KubernetesObject => ({
      ...kind,
      metadata: { name: 'contract', namespace, labels },
      data,
    });

    beforeAll(async () => {
      cluster = await connect();
    });

    afterAll(() => {
      cluster.close();
    });

    it('answers paths with their status', async () => {
      expect(await cluster.get('/readyz')).toMatchObject({ status: 200 });
      expect(await cluster.get('/api/v1/namespaces/default/configmaps/contract')).toMatchObject({ status: 404 });
    });

    it('lists what was applied, complete, by label and namespace', async () => {
      await cluster.apply(settings({ color: 'red' }));
      await cluster.apply(settings({ color: 'blue' }, 'kube-system'));
      const everywhere = await cluster.list(kind, { labelSelector });
      expect(everywhere.map(({ metadata }) => metadata.namespace).toSorted()).toEqual(['default', 'kube-system']);
      const [object, ...others] = await cluster.list(kind, { labelSelector, namespace: 'default' });
      expect(others).toEqual([]);
      expect(object).toMatchObject(settings({ color: 'red' }));
      expect(await cluster.list(kind, { labelSelector: 'sandbar.test/contract in (other,none)' })).toEqual([]);
    });

    it('applies again over what is there', async () => {
      await cluster.apply(settings({ color: 'green' }));
      const [object] = await cluster.list(kind, { labelSelector, namespace: 'default' });
      expect(object).toMatchObject({ data: { color: 'green' } });
    });

    it('keeps nothing of what is created in a dry run, and refuses to create what is there', async () => {
      const fresh = { ...settings({ color: 'red' }), metadata: { name: 'fresh', namespace: 'default', labels } };
      const namesOf = async (): Promise<readonly string[]> =>
        (await cluster.list(kind, { labelSelector, namespace: 'default' })).map(({ metadata }) => metadata.name);
      expect(await cluster.create(fresh, { isDryRun: true })).toMatchObject(fresh);
      expect(await namesOf()).not.toContain('fresh');
      expect(await cluster.create(fresh, { isDryRun: false })).toMatchObject(fresh);
      expect(await namesOf()).toContain('fresh');
      await expect(cluster.create(fresh, { isDryRun: false })).rejects.toMatchObject({ code: 'CONFLICT' });
      await cluster.remove(fresh);
    });

    it('patches what is named and leaves the rest', async () => {
      await cluster.apply(settings({ color: 'green', size: 'big' }));
      const patched = await cluster.patch(settings({}), { data: { color: null, shape: 'round' } });
      expect(patched).toMatchObject({ metadata: { name: 'contract', labels } });
      const [object] = await cluster.list(kind, { labelSelector, namespace: 'default' });
      expect(object?.['data']).toEqual({ size: 'big', shape: 'round' });
      const missing = { ...kind, metadata: { name: 'missing', namespace: 'default' } };
      await expect(cluster.patch(missing, { data: {} })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    });

    it('lists nothing of a kind that is not served', async () => {
      expect(await cluster.list({ apiVersion: 'sandbar.test/v1', kind: 'Nothing' }, {})).toEqual([]);
    });

    it('gives every line of the answer to a POST, with its status', async () => {
      const lines: string[] = [];
      const { signal } = new AbortController();
      const answer = await cluster.post('/sandbar/nothing', {}, { onLine: (line) => lines.push(line), signal });
      expect(answer).toEqual({ status: 404 });
      expect(lines).toEqual(['404 page not found']);
      const aborted = cluster.post(
        '/sandbar/nothing',
        {},
        { onLine: () => undefined, signal: AbortSignal.abort('so') },
      );
      await expect(aborted).rejects.toBe('so');
    });

    it('removes, and a second removal changes nothing', async () => {
      for (let time = 0; time < 2; time += 1) {
        await cluster.remove(settings({}));
        await cluster.remove(settings({}, 'kube-system'));
      }
      await cluster.remove({ apiVersion: 'sandbar.test/v1', kind: 'Nothing', metadata: { name: 'nothing' } });
      expect(await cluster.list(kind, { labelSelector })).toEqual([]);
    });
  });
}
