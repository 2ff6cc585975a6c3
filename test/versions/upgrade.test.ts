/** A cluster of the previous minor version of Kubernetes, and what becomes of it. The images of that version are built at first. */
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE, toolboxPod } from '../e2e/fixtures/apps.ts';
import { createSandbox } from '../e2e/support.ts';
import { DEFAULT_KUBERNETES, KUBERNETES_VERSIONS, type KubernetesMinor } from '../../src/model/versions.ts';

const sandbox = createSandbox('versions');
const PREVIOUS: KubernetesMinor = '1.35';
const [before, after] = [KUBERNETES_VERSIONS[PREVIOUS], KUBERNETES_VERSIONS[DEFAULT_KUBERNETES]];

/** The cluster's own kubectl: the tests' usual one is of the default version. */
const kubectl = (...args: readonly string[]): Promise<string> => sandbox.must(['kubectl', ...args]);
const nameOf = (...args: readonly string[]): Promise<string> =>
  kubectl('get', '--ignore-not-found', '-o', 'name', ...args);
const apply = (object: object): Promise<string> =>
  sandbox.must(['kubectl', 'apply', '-f', '-'], { stdin: JSON.stringify(object) });

/** Versions of the kubectl that the command line brings, the API server and the kubelet. */
async function versions(): Promise<readonly unknown[]> {
  const { clientVersion, serverVersion } = JSON.parse(await kubectl('version', '-o', 'json')) as Readonly<
    Record<string, { readonly gitVersion: string }>
  >;
  const kubelet = await kubectl('get', 'nodes', '-o', 'jsonpath={.items[*].status.nodeInfo.kubeletVersion}');
  return [clientVersion?.gitVersion, serverVersion?.gitVersion, kubelet];
}

describe('a cluster of the previous minor version', () => {
  beforeAll(async () => {
    await sandbox.writeConfig(`kubernetes: { version: '${PREVIOUS}' }\n`);
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  }, 3_600_000);

  it('is of that version in all its parts, runs pods, and resets', async () => {
    expect(await versions()).toEqual([before, before, before]);
    await kubectl('create', 'configmap', 'gone', '--from-literal=a=b');
    await sandbox.must(['reset', '--yes']);
    expect(await nameOf('configmap', 'gone')).toBe('');
    await apply(toolboxPod('toolbox'));
    await kubectl('wait', '--for=condition=Ready', 'pod/toolbox', '--timeout=60s');
  });

  it('is taken to the next one with its data, and its pods run again', async () => {
    await kubectl('create', 'configmap', 'kept', '--from-literal=a=b');
    const uid = await kubectl('get', 'configmap', 'kept', '-o', 'jsonpath={.metadata.uid}');
    await sandbox.writeConfig('kubernetes: {}\n');
    const unasked = await sandbox.run(['up']);
    expect(unasked.exitCode).toBe(2);
    expect(unasked.stderr).toContain(`set kubernetes.version to '${PREVIOUS}'`);
    expect((await versions())[1]).toBe(before);
    await sandbox.writeConfig(`kubernetes: { version: '${DEFAULT_KUBERNETES}' }\n`);
    const { events } = await sandbox.up();
    const texts = events.map(({ text }) => text);
    expect(texts).toContain(`this takes the cluster from Kubernetes ${before} to ${after}; its data are kept`);
    expect(await versions()).toEqual([after, after, after]);
    expect(await kubectl('get', 'configmap', 'kept', '-o', 'jsonpath={.metadata.uid}')).toBe(uid);
    await kubectl('wait', '--for=condition=Ready', 'pod/toolbox', '--timeout=60s');
    await sandbox.must(['reset', '--yes']);
    expect(await nameOf('configmap', 'kept')).toBe('');
    expect((await sandbox.up()).steps).toEqual([]);
  });

  it('does not go back', async () => {
    await sandbox.writeConfig(`kubernetes: { version: '${PREVIOUS}' }\n`);
    const { exitCode, stderr } = await sandbox.run(['up']);
    expect(exitCode).toBe(3);
    expect(stderr).toContain(`the cluster's data are of Kubernetes ${after}, and ${before} is asked for`);
    expect(stderr).toContain(`set kubernetes.version to ${DEFAULT_KUBERNETES}`);
    expect((await versions())[1]).toBe(after);
  });
});
