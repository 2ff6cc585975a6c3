import { beforeEach, describe, expect, it } from 'vitest';
import { Machine } from '../builders/machine.ts';

describe('up of a cluster with a namespace that is being deleted', () => {
  let machine: Machine;

  beforeEach(async () => {
    machine = new Machine();
    await machine.up();
    end('sandbar-system');
  });

  function end(name: string): void {
    const namespace = {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, deletionTimestamp: '2026-05-01T12:00:00Z' },
    };
    machine.cluster.objects.set(`v1 Namespace  ${name}`, namespace);
  }

  it('waits for its end, and makes again what went with it', async () => {
    const { cluster } = machine;
    const list = cluster.list.bind(cluster);
    let questions = 0;
    cluster.list = (kind, options) => {
      if (kind.kind === 'Namespace') questions += 1;
      if (questions === 3) {
        const gone = [...cluster.objects.keys()].filter((key) =>
          /Namespace {2}sandbar-system| sandbar-system /.test(key),
        );
        gone.forEach((key) => cluster.objects.delete(key));
      }
      return list(kind, options);
    };
    const { plan } = await machine.up();
    expect(plan.map(({ id }) => id)).toContain('create object/Namespace/sandbar-system');
    expect(plan.map(({ id }) => id)).toContain('create object/Service/sandbar-system/s3');
  });

  it('is an error with the way out where it does not come to its end', async () => {
    await expect(machine.up()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'namespace sandbar-system is being deleted, and does not come to its end',
    });
  });

  it('is none of its business where the namespace is of the user', async () => {
    machine.cluster.objects.delete('v1 Namespace  sandbar-system');
    await machine.up();
    end('shop');
    expect((await machine.up()).plan).toEqual([]);
  });
});
