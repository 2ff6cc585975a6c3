import { SandbarError } from '../../src/model/errors.ts';
import type { ObjectStore } from '../../src/model/ports.ts';

type FakeBucket = {
  hasVersioning: boolean;
  readonly objects: Map<string, Buffer>;
  /** Its objects are under retention in compliance mode. */
  readonly isLocked?: boolean;
};

/** Buckets in memory. */
export class FakeObjectStore implements ObjectStore {
  readonly buckets = new Map<string, FakeBucket>();

  listBuckets(): Promise<readonly { readonly name: string; readonly created: string }[]> {
    return Promise.resolve([...this.buckets.keys()].map((name) => ({ name, created: '2026-05-01T12:00:00.000Z' })));
  }

  createBucket({ name, hasVersioning }: { readonly name: string; readonly hasVersioning: boolean }): Promise<void> {
    const bucket = this.buckets.get(name) ?? { hasVersioning, objects: new Map<string, Buffer>() };
    this.buckets.set(name, { ...bucket, hasVersioning: bucket.hasVersioning || hasVersioning });
    return Promise.resolve();
  }

  async isVersioned(bucketName: string): Promise<boolean> {
    return Promise.resolve(this.#bucket(bucketName).hasVersioning);
  }

  async removeBucket(bucketName: string, { isForced }: { readonly isForced: boolean }): Promise<void> {
    if (this.#bucket(bucketName).objects.size > 0 && !isForced) {
      throw new SandbarError('CONFLICT', `bucket ${bucketName} is not empty`);
    }
    if (this.#bucket(bucketName).isLocked === true) {
      throw new SandbarError('CONFLICT', `could not empty bucket ${bucketName}: an object is WORM protected`);
    }
    this.buckets.delete(bucketName);
    await Promise.resolve();
  }

  async putObject(
    bucketName: string,
    { key, content }: { readonly key: string; readonly content: Buffer },
  ): Promise<void> {
    this.#bucket(bucketName).objects.set(key, content);
    await Promise.resolve();
  }

  async getObject(bucketName: string, key: string): Promise<Buffer | undefined> {
    return Promise.resolve(this.#bucket(bucketName).objects.get(key));
  }

  #bucket(bucketName: string): FakeBucket {
    const bucket = this.buckets.get(bucketName);
    if (bucket === undefined) throw new SandbarError('NOT_FOUND', `there is no bucket ${bucketName}`);
    return bucket;
  }
}
