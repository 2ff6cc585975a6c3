import { describe, expect, it } from 'vitest';
import { createBucket, formatEnvironment, listBuckets, removeBucket } from '../../src/operations/buckets.ts';
import { FakeObjectStore } from '../fakes/fake-object-store.ts';

describe('buckets', () => {
  it('lists buckets by name', async () => {
    const store = new FakeObjectStore();
    for (const name of ['pictures', 'backups']) await createBucket(store, { name, hasVersioning: false });
    expect((await listBuckets(store)).map(({ name }) => name)).toEqual(['backups', 'pictures']);
  });

  it('refuses names that S3 would refuse, before asking it', async () => {
    const creating = createBucket(new FakeObjectStore(), { name: 'My_Bucket', hasVersioning: false });
    await expect(creating).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('removes a bucket that is not empty only by force', async () => {
    const store = new FakeObjectStore();
    await createBucket(store, { name: 'pictures', hasVersioning: false });
    await store.putObject('pictures', { key: 'a', content: Buffer.from('a') });
    await expect(removeBucket(store, 'pictures', { isForced: false })).rejects.toMatchObject({ code: 'CONFLICT' });
    await removeBucket(store, 'pictures', { isForced: true });
    expect(await listBuckets(store)).toEqual([]);
  });
});

describe('formatEnvironment', () => {
  const access = {
    endpoint: 'http://127.0.0.1:9000',
    accessKeyId: 'key',
    secretAccessKey: "it's\\",
    region: 'us-east-1',
  };

  it.each([
    ['sh', `export AWS_SECRET_ACCESS_KEY='it'\\''s\\'`],
    ['fish', `set -gx AWS_SECRET_ACCESS_KEY 'it\\'s\\\\'`],
    ['powershell', `$Env:AWS_SECRET_ACCESS_KEY = 'it''s\\'`],
  ])('quotes for %s', (shell, line) => {
    expect(formatEnvironment(access, shell).text.split('\n')).toContain(line);
  });

  it('names the variables that S3 clients read', () => {
    expect(Object.keys(formatEnvironment(access).variables)).toEqual([
      'AWS_ENDPOINT_URL_S3',
      'AWS_ACCESS_KEY_ID',
      'AWS_SECRET_ACCESS_KEY',
      'AWS_REGION',
    ]);
  });
});
