/** The adapters to a real API server and object store, held to the contracts of their ports. */
import { CreateBucketCommand, PutObjectCommand, S3Client, type ObjectLockMode } from '@aws-sdk/client-s3';
import { beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { KubernetesCluster } from '../../src/adapters/kubernetes.ts';
import { S3ObjectStore } from '../../src/adapters/object-store.ts';
import type { ApiAccess } from '../../src/model/ports.ts';
import { accessCluster, objectStoreAccess, type ObjectStoreAccess } from '../../src/operations/access.ts';
import { describeCluster } from '../contract/cluster-contract.ts';
import { describeObjectStore } from '../contract/object-store-contract.ts';
import { environment, isDockerMissing } from '../fixtures/docker.ts';
import { createSandbox } from './support.ts';

describe.skipIf(isDockerMissing)('on a running cluster', () => {
  const sandbox = createSandbox('adapters');
  let api: ApiAccess;
  let store: ObjectStoreAccess;

  beforeAll(async () => {
    await sandbox.up();
    const runtime = new DockerRuntime(environment);
    const access = await accessCluster(runtime, sandbox.name);
    api = access.api;
    store = await objectStoreAccess(access, runtime);
    await runtime.close();
  });

  describeCluster('KubernetesCluster', () => Promise.resolve(new KubernetesCluster(api)));
  describeObjectStore('S3ObjectStore', () => Promise.resolve(new S3ObjectStore(store)));

  describe('S3ObjectStore', () => {
    /** A bucket with one object under retention. */
    async function lockedBucket(Bucket: string, ObjectLockMode: ObjectLockMode, untilMs: number): Promise<void> {
      const client = new S3Client({ ...store, credentials: store, forcePathStyle: true });
      await client.send(new CreateBucketCommand({ Bucket, ObjectLockEnabledForBucket: true }));
      const ObjectLockRetainUntilDate = new Date(Date.now() + untilMs);
      await client.send(
        new PutObjectCommand({ Bucket, Key: 'a', Body: 'a', ObjectLockMode, ObjectLockRetainUntilDate }),
      );
      client.destroy();
    }

    it('removes by force what is under retention in governance mode, and says that nobody may in compliance mode', async () => {
      const objects = new S3ObjectStore(store);
      await lockedBucket('governed', 'GOVERNANCE', 3_600_000);
      await objects.removeBucket('governed', { isForced: true });
      await lockedBucket('compliant', 'COMPLIANCE', 3_600_000);
      await expect(objects.removeBucket('compliant', { isForced: true })).rejects.toMatchObject({ code: 'CONFLICT' });
      expect((await objects.listBuckets()).map(({ name }) => name)).toEqual(['compliant']);
      objects.close();
    });
  });

  describe('KubernetesCluster', () => {
    it("refuses in the server's words, with the object's name", async () => {
      const cluster = new KubernetesCluster(api);
      const named = (name: string, namespace = 'default') => ({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name, namespace },
      });
      await expect(cluster.apply(named('settings', 'none'))).rejects.toMatchObject({
        code: 'NOT_FOUND',
        message: expect.stringMatching(/ConfigMap none\/settings.*namespaces "none" not found/) as string,
      });
      await expect(cluster.apply(named('Not_Valid'))).rejects.toMatchObject({
        code: 'KUBERNETES_FAILED',
        message: expect.stringContaining('Not_Valid') as string,
      });
      cluster.close();
    });

    it('applies an object of a kind that was defined a moment ago', async () => {
      const cluster = new KubernetesCluster(api);
      const definition = {
        apiVersion: 'apiextensions.k8s.io/v1',
        kind: 'CustomResourceDefinition',
        metadata: { name: 'boats.sandbar.test' },
        spec: {
          group: 'sandbar.test',
          scope: 'Namespaced',
          names: { plural: 'boats', singular: 'boat', kind: 'Boat' },
          versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
        },
      };
      await cluster.apply(definition);
      await cluster.apply({ apiVersion: 'sandbar.test/v1', kind: 'Boat', metadata: { name: 'dinghy' } });
      const boats = await cluster.list({ apiVersion: 'sandbar.test/v1', kind: 'Boat' }, {});
      expect(boats.map(({ metadata }) => metadata.name)).toEqual(['dinghy']);
      await cluster.remove(definition);
      cluster.close();
    });

    it('says that nothing answers', async () => {
      const cluster = new KubernetesCluster({ ...api, server: 'https://127.0.0.1:1' });
      expect(await cluster.get('/readyz')).toEqual({ status: 0, body: '' });
      const listing = cluster.list({ apiVersion: 'v1', kind: 'Node' }, {});
      await expect(listing).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
      cluster.close();
    });
  });
});
