import { beforeAll, describe, expect, it } from 'vitest';
import type { ObjectStore } from '../../src/model/ports.ts';

/** What every object store is held to. */
export function describeObjectStore(name: string, connect: () => Promise<ObjectStore>): void {
  describe(name, () => {
    let store: ObjectStore;
    const namesOf = async (): Promise<readonly string[]> => (await store.listBuckets()).map((bucket) => bucket.name);
    const put = (key: string, content: string): Promise<void> =>
      store.putObject('contract-kept', { key, content: Buffer.from(content) });

    beforeAll(async () => {
      store = await connect();
    });

    it('lists a bucket that was created, with its time', async () => {
      await store.createBucket({ name: 'contract-plain', hasVersioning: false });
      await store.createBucket({ name: 'contract-kept', hasVersioning: true });
      expect(await namesOf()).toEqual(expect.arrayContaining(['contract-plain', 'contract-kept']));
      const [bucket] = await store.listBuckets();
      expect(Date.parse(bucket?.created ?? '')).not.toBeNaN();
    });

    it('creates what is there already without complaint', async () => {
      await store.createBucket({ name: 'contract-plain', hasVersioning: false });
      await store.createBucket({ name: 'contract-kept', hasVersioning: true });
    });

    it('keeps versions only where that is asked for, also later', async () => {
      expect(await store.isVersioned('contract-kept')).toBe(true);
      expect(await store.isVersioned('contract-plain')).toBe(false);
      await store.createBucket({ name: 'contract-plain', hasVersioning: true });
      expect(await store.isVersioned('contract-plain')).toBe(true);
    });

    it('gives objects back as they were put', async () => {
      await put('folder/é & <b> +?.txt', 'first');
      await put('folder/é & <b> +?.txt', 'second');
      expect((await store.getObject('contract-kept', 'folder/é & <b> +?.txt'))?.toString()).toBe('second');
      expect(await store.getObject('contract-kept', 'none')).toBeUndefined();
    });

    it('removes a bucket that is not empty only by force, whatever its objects are called', async () => {
      for (const key of ['plain', 'line\nbreak', 'control\u0001character', `"quoted" 'too'`]) await put(key, key);
      const removing = store.removeBucket('contract-kept', { isForced: false });
      await expect(removing).rejects.toMatchObject({ code: 'CONFLICT' });
      await store.removeBucket('contract-kept', { isForced: true });
      await store.removeBucket('contract-plain', { isForced: false });
      expect(await namesOf()).not.toContain('contract-kept');
    });

    it('says that a bucket is not there', async () => {
      const removing = store.removeBucket('contract-none', { isForced: true });
      await expect(removing).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(store.isVersioned('contract-none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    });
  });
}
