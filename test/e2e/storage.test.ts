/** Volumes of claims: what is granted, what is refused and with which words, and what pods find in them. */
import { beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('storage');

const TIMEOUT = '--timeout=60s';

async function apply(...objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

function claim(name: string, spec: object = {}): object {
  const common = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '64Mi' } } };
  return { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name }, spec: { ...common, ...spec } };
}

/** A pod that runs this in a shell, with a claim at /data unless the spec says otherwise. */
function pod(name: string, script: string, { claimName = name, spec = {}, container = {} } = {}): object {
  const main = {
    name: 'main',
    image: TEST_IMAGE,
    imagePullPolicy: 'Never',
    command: ['/bin/busybox', 'sh', '-c', script],
    volumeMounts: [{ name: 'data', mountPath: '/data' }],
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      containers: [{ ...main, ...container }],
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }],
      ...spec,
    },
  };
}

async function outputOf(name: string): Promise<string> {
  await sandbox.mustKubectl(['wait', `pod/${name}`, '--for=jsonpath={.status.phase}=Succeeded', TIMEOUT]);
  return (await sandbox.mustKubectl(['logs', name])).trim();
}

/** What the events of an object say, once they match. */
function toldOf(name: string, pattern: RegExp): Promise<string> {
  return eventually(`an event of ${name} like ${String(pattern)}`, async () => {
    const { items } = await sandbox.getObject('events', `--field-selector=involvedObject.name=${name}`);
    return items.map(({ message }) => String(message)).find((message) => pattern.test(message));
  });
}

describe('storage', () => {
  beforeAll(async () => {
    const runtime = new DockerRuntime(environment);
    await provideTestImage(runtime);
    await runtime.close();
    await sandbox.up(['--no-object-store', '--no-registry']);
    await sandbox.must(['image', 'load', TEST_IMAGE]);
  });

  it('grants the access modes that were asked for, and keeps a second pod from a volume that is for one', async () => {
    await apply(
      claim('many', { accessModes: ['ReadWriteMany', 'ReadOnlyMany'] }),
      claim('single', { accessModes: ['ReadWriteOncePod'] }),
      pod('writer', 'echo shared > /data/file', { claimName: 'many' }),
      pod('holder', 'sleep 1000', { claimName: 'single' }),
    );
    expect(await outputOf('writer')).toBe('');
    await apply(pod('reader', 'cat /data/file', { claimName: 'many' }));
    expect(await outputOf('reader')).toBe('shared');
    const { spec } = await sandbox.getObject('pvc', 'many');
    const volume = await sandbox.getObject('pv', String(spec['volumeName']));
    expect(volume.spec).toMatchObject({
      accessModes: ['ReadWriteMany', 'ReadOnlyMany'],
      capacity: { storage: '64Mi' },
    });
    await sandbox.mustKubectl(['wait', 'pod/holder', '--for=condition=Ready', TIMEOUT]);
    await apply(pod('second', 'true', { claimName: 'single' }));
    expect(await toldOf('second', /ReadWriteOncePod/)).toMatch(/PersistentVolumeClaim.*ReadWriteOncePod access mode/);
  });

  it('refuses to let a volume grow, in words', async () => {
    const patch = JSON.stringify({ spec: { resources: { requests: { storage: '1Gi' } } } });
    const { exitCode, stderr } = await sandbox.kubectl(['patch', 'pvc', 'many', '-p', patch]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/storageclass that provisions the pvc must support resize/);
  });

  it('refuses blocks and copies with an event of the claim, and makes nothing in their place', async () => {
    const snapshot = { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name: 'before' };
    await apply(
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'at-once' },
        provisioner: 'sandbar.dev/local-volume',
      },
      claim('raw', { storageClassName: 'at-once', volumeMode: 'Block' }),
      claim('restored', { storageClassName: 'at-once', dataSource: snapshot }),
      claim('cloned', { storageClassName: 'at-once', dataSource: { kind: 'PersistentVolumeClaim', name: 'many' } }),
    );
    expect(await toldOf('raw', /block/)).toContain('does not support block volume provisioning');
    expect(await toldOf('restored', /not made from/)).toContain('(VolumeSnapshot before)');
    expect(await toldOf('cloned', /not made from/)).toContain('(PersistentVolumeClaim many)');
    for (const name of ['raw', 'restored', 'cloned']) {
      expect((await sandbox.getObject('pvc', name)).status['phase']).toBe('Pending');
    }
  });

  it('keeps a volume whose class says so, for another claim to take', async () => {
    const provisioner = 'sandbar.dev/local-volume';
    await apply(
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'kept' },
        provisioner,
        reclaimPolicy: 'Retain',
        volumeBindingMode: 'Immediate',
      },
      claim('first', { storageClassName: 'kept' }),
    );
    await sandbox.mustKubectl(['wait', 'pvc/first', '--for=jsonpath={.status.phase}=Bound', TIMEOUT]);
    await apply(pod('leave', 'echo kept > /data/file', { claimName: 'first' }));
    await outputOf('leave');
    const volumeName = String((await sandbox.getObject('pvc', 'first')).spec['volumeName']);
    await sandbox.mustKubectl(['delete', 'pod/leave', 'pvc/first']);
    await sandbox.mustKubectl(['wait', `pv/${volumeName}`, '--for=jsonpath={.status.phase}=Released', TIMEOUT]);
    await sandbox.mustKubectl(['patch', 'pv', volumeName, '-p', '{"spec":{"claimRef":null}}']);
    await apply(
      claim('heir', { storageClassName: 'kept', volumeName }),
      pod('find', 'cat /data/file', { claimName: 'heir' }),
    );
    expect(await outputOf('find')).toBe('kept');
  });

  it('serves volumes that were made by hand', async () => {
    const common = { capacity: { storage: '1Mi' }, accessModes: ['ReadWriteOnce'], storageClassName: 'by-hand' };
    await apply(
      {
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        metadata: { name: 'by-hand' },
        spec: { ...common, hostPath: { path: '/var/lib/by-hand', type: 'DirectoryOrCreate' } },
      },
      claim('by-hand', { storageClassName: 'by-hand', resources: { requests: { storage: '1Mi' } } }),
      pod('by-hand', 'echo there > /data/file; cat /data/file'),
    );
    expect(await outputOf('by-hand')).toBe('there');
  });

  it('gives pods their group, parts of volumes, memory with a limit, and volumes that go with them', async () => {
    const script = [
      'stat -c %g /data /own',
      'echo part > /part/file; cat /data/sub/path/file',
      'dd if=/dev/zero of=/memory/file bs=64k count=64 2>&1 | grep -o "No space left on device"',
      'df -k /memory | tail -n 1 | sed "s/  */ /g" | cut -d" " -f2',
    ].join('\n');
    const mounts = [
      { name: 'data', mountPath: '/data' },
      { name: 'data', mountPath: '/part', subPath: 'sub/path' },
      { name: 'memory', mountPath: '/memory' },
      { name: 'own', mountPath: '/own' },
    ];
    const volumes = [
      { name: 'data', persistentVolumeClaim: { claimName: 'grouped' } },
      { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
      { name: 'own', ephemeral: { volumeClaimTemplate: { spec: (claim('') as { spec: object }).spec } } },
    ];
    const securityContext = { runAsUser: 1234, runAsGroup: 1234, fsGroup: 4321 };
    await apply(
      claim('grouped'),
      pod('grouped', script, { spec: { volumes, securityContext }, container: { volumeMounts: mounts } }),
    );
    expect((await outputOf('grouped')).split('\n')).toEqual([
      '4321',
      '4321',
      'part',
      'No space left on device',
      '1024',
    ]);
    expect((await sandbox.getObject('pvc', 'grouped-own')).status['phase']).toBe('Bound');
    await sandbox.mustKubectl(['delete', 'pod/grouped']);
    await sandbox.mustKubectl(['wait', 'pvc/grouped-own', '--for=delete', TIMEOUT]);
  });
});
