/** What was acknowledged is there afterwards, however hard the end of what took it. */
import { existsSync } from 'node:fs';
import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE } from '../e2e/fixtures/apps.ts';
import { apply, inContainer } from '../e2e/mounts.ts';
import { createSandbox, eventually } from '../e2e/support.ts';
import { connectS3, startPutting, startWriting, untilMore, type Writer } from '../e2e/writers.ts';
import { Keeper } from './keeper.ts';
import { inEngine, isOwnMachine, killProcess, powerOff, powerOn } from './machine.ts';

/** Groups as cgroup v1 has them, in which a single process can be made short of memory. */
const hasMemoryGroups = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');

describe.skipIf(!isOwnMachine)('a cluster under writes without a pause', () => {
  const sandbox = createSandbox('load');
  let keeper: Keeper;
  let s3: S3Client;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
    s3 = await connectS3(sandbox);
  });

  async function expectWritten({ acknowledged }: Writer): Promise<void> {
    const { items } = await sandbox.getObject('configmaps', '--selector=test=writes');
    const written = new Set(
      items.filter(({ metadata, data }) => data['name'] === metadata.name).map(({ metadata }) => metadata.name),
    );
    expect([...acknowledged].filter((name) => !written.has(name))).toEqual([]);
    await sandbox.mustKubectl(['delete', '--raw', '/api/v1/namespaces/default/configmaps?labelSelector=test%3Dwrites']);
  }

  async function expectPut({ acknowledged }: Writer): Promise<void> {
    const keys = [...acknowledged];
    const lost: string[] = [];
    const read = async (): Promise<void> => {
      for (let key = keys.pop(); key !== undefined; key = keys.pop()) {
        const object = s3.send(new GetObjectCommand({ Bucket: 'kept', Key: key }));
        const text = await object.then(({ Body: body }) => body?.transformToString(), String);
        if (text !== key) lost.push(`${key}: ${text ?? ''}`);
      }
    };
    await Promise.all([read(), read(), read(), read()]);
    expect(lost).toEqual([]);
  }

  it('loses no object of a bucket when its object store is killed again and again', async () => {
    const writer = await startPutting(sandbox, 'kept');
    const pid = async (): Promise<number | undefined> => (await sandbox.inspect('object-store')).State.Pid || undefined;
    for (let kills = 0; kills < 3; kills += 1) {
      await untilMore(writer, 50);
      await killProcess(await eventually('the object store runs', pid));
      await eventually('a write is refused', () => Promise.resolve(writer.takeRefusal()));
    }
    await untilMore(writer, 50);
    await writer.stop();
    await keeper.untilServed();
    await expectPut(writer);
  });

  it('loses nothing when the power fails', async () => {
    const [objects, puts] = await Promise.all([startWriting(sandbox), startPutting(sandbox, 'kept')]);
    await Promise.all([untilMore(objects, 200), untilMore(puts, 100)]);
    await powerOff();
    await keeper.recovers('power failed under writes', powerOn);
    await Promise.all([untilMore(objects, 50), untilMore(puts, 50)]);
    await Promise.all([objects.stop(), puts.stop()]);
    await expectWritten(objects);
    await expectPut(puts);
  });

  it.skipIf(!hasMemoryGroups)('loses nothing when its control plane runs out of memory', async () => {
    const writer = await startWriting(sandbox);
    await untilMore(writer, 50);
    const { Id: id, State: state } = await sandbox.inspect('control-plane');
    await keeper.recovers('control plane out of memory', async () => {
      await inEngine('sh', '-c', starve(`/sys/fs/cgroup/memory/docker/${id}/starved`, String(state.Pid)));
      await eventually('a write is refused', () => Promise.resolve(writer.takeRefusal()));
    });
    await untilMore(writer, 50);
    await writer.stop();
    await expectWritten(writer);
    expect((await sandbox.inspect('control-plane')).State.StartedAt).not.toBe(state.StartedAt);
  });

  it.skipIf(!hasMemoryGroups)('keeps its pods running when the kubelet runs out of memory', async () => {
    const before = await keeper.pods();
    const agent = sandbox.containerName('agent');
    const findKubelet = (): Promise<string> => inContainer(agent, 'pidof sandbar-kubelet || true');
    const kubelet = await findKubelet();
    await keeper.recovers('kubelet out of memory', async () => {
      await inContainer(agent, starve('/sys/fs/cgroup/memory/starved', kubelet.trim()));
      await eventually('another kubelet', async () => {
        // Every question of a client takes some memory.
        await keeper.complaints();
        return !['', kubelet].includes(await findKubelet()) || undefined;
      });
    });
    expect(await inContainer(agent, 'grep oom_kill\\  /sys/fs/cgroup/memory/starved/memory.oom_control')).not.toContain(
      'kill 0',
    );
    expect(await keeper.pods()).toEqual(before);
  });

  it('restarts a pod that runs out of its own memory, and says so, and no other', async () => {
    const before = await keeper.pods();
    const script = "setTimeout(() => { const all = []; for (;;) all.push(Buffer.alloc(1e6, 'x')); }, 1000)";
    const container = {
      name: 'main',
      image: TOOLBOX_IMAGE,
      imagePullPolicy: 'IfNotPresent',
      command: ['node', '-e', script],
      resources: { limits: { memory: '96Mi' } },
    };
    await apply(sandbox, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'hungry' },
      spec: { containers: [container] },
    });
    await eventually('the pod was restarted', async () => {
      const { status } = await sandbox.getObject('pod', 'hungry');
      const [{ restartCount = 0, lastState }] = (status['containerStatuses'] ?? [{}]) as readonly [
        { readonly restartCount?: number; readonly lastState?: object },
      ];
      if (restartCount === 0) return undefined;
      expect(lastState).toMatchObject({ terminated: { reason: 'OOMKilled', exitCode: 137 } });
      return true;
    });
    await sandbox.mustKubectl(['delete', 'pod', 'hungry', '--grace-period=0', '--force']);
    await keeper.expectNothingLost();
    await eventually('only the others', async () => (await keeper.pods()).length === before.length || undefined);
    expect(await keeper.pods()).toEqual(before);
  });
});

/** Leaves a process less memory than it is about to ask for: the kernel ends it. */
function starve(group: string, pid: string): string {
  return [`mkdir -p ${group}`, `echo 64K > ${group}/memory.limit_in_bytes`, `echo ${pid} > ${group}/cgroup.procs`].join(
    ' && ',
  );
}
