import { beforeEach, describe, expect, it } from 'vitest';
import { loadLastSpec } from '../../src/cli/load-last-spec.ts';
import type { CliDependencies } from '../../src/cli/context.ts';
import type { AllPorts } from '../../src/cli/context.ts';
import type { LoadedSpec } from '../../src/cli/load-spec.ts';
import { COMPONENT_VERSIONS, upgradeProblem } from '../../src/model/versions.ts';
import { SPEC } from '../builders/cluster.ts';
import { Machine } from '../builders/machine.ts';
import { Shell } from '../builders/shell.ts';

const RECORD = '/etc/sandbar/last-up.json';
const CONTROL_PLANE = 'sandbar-dev-control-plane';

describe('the record of the last up', () => {
  let machine: Machine;
  let shell: Shell;

  beforeEach(() => {
    machine = new Machine();
    shell = new Shell(machine);
  });

  const file = (path: string, content: string): void => {
    machine.host.files.set(path, { content, mode: 0o644, ageMs: 0 });
  };
  const record = async (): Promise<unknown> => {
    const text = await machine.runtime.readFile(CONTROL_PLANE, RECORD);
    return text === undefined ? undefined : JSON.parse(text);
  };
  const rewrite = (content: unknown): Promise<void> =>
    machine.runtime.writeFile(CONTROL_PLANE, {
      path: RECORD,
      mode: 0o600,
      content: typeof content === 'string' ? content : JSON.stringify(content),
    });
  const writes = (): number => machine.runtime.calls.filter((call) => call.startsWith(`write ${RECORD}`)).length;
  const loadLast = (globals: { readonly name?: string; readonly file?: string } = {}): Promise<LoadedSpec> =>
    loadLastSpec(
      {
        cli: { host: machine.host, signal: new AbortController().signal } as unknown as CliDependencies,
        globals: { output: 'text', ...globals },
      },
      { ports: machine.ports as AllPorts, emit: () => undefined },
    );

  it('holds the file, the flags that say how the cluster is to be, and the version of its data', async () => {
    file('/home/ada/app/sandbar.yaml', 'ports: { http: 8080 }');
    await shell.lines('up', '--bucket', 'pictures', '--no-ingress', '--name', 'dev', '-q', '--yes');
    expect(await record()).toEqual({
      version: 1,
      file: '/home/ada/app/sandbar.yaml',
      flags: { bucket: ['pictures'], ingress: false },
      kubernetes: COMPONENT_VERSIONS.kubernetes,
      isEncrypted: false,
    });
  });

  it('is written when it changes, and only then', async () => {
    await machine.up({ isDryRun: true });
    expect(writes()).toBe(0);
    await machine.up();
    await machine.up();
    expect(writes()).toBe(1);
    await machine.up({ origin: { file: null, flags: { bucket: ['pictures'] } } });
    expect(writes()).toBe(2);
    expect(await record()).toMatchObject({ file: null, flags: { bucket: ['pictures'] } });
  });

  it('is kept when the control plane was removed, and through down', async () => {
    const origin = { file: null, flags: { apiPort: '7443' } };
    await machine.up({ origin });
    await machine.runtime.removeContainer(CONTROL_PLANE);
    expect((await loadLast()).spec.ports.api).toEqual({ port: 7443, isFixed: true });
    await machine.down();
    machine.runtime.images.set('sandbar/control-plane:1', {});
    await machine.up({ origin });
    expect(writes()).toBe(1);
  });

  it('makes the same spec again, from a file that is read anew, wherever the command is called', async () => {
    file('/srv/shop/sandbar.yaml', 'name: dev\nobjectStore: { buckets: [first] }');
    file('/home/ada/app/sandbar.yaml', 'objectStore: { buckets: [other] }');
    await machine.up({ origin: { file: '/srv/shop/sandbar.yaml', flags: { bucket: ['pictures'] } } });
    file('/srv/shop/sandbar.yaml', 'name: dev\nobjectStore: { buckets: [second] }');
    const { spec, origin } = await loadLast();
    expect(spec.objectStore.buckets.map(({ name }) => name)).toEqual(['second', 'pictures']);
    expect(origin).toEqual({ file: '/srv/shop/sandbar.yaml', flags: { bucket: ['pictures'] } });
    const named = await loadLast({ file: 'sandbar.yaml' });
    expect(named.spec.objectStore.buckets.map(({ name }) => name)).toEqual(['other', 'pictures']);
  });

  it('means no file where there was none', async () => {
    await machine.up();
    file('/home/ada/app/sandbar.yaml', 'objectStore: { buckets: [other] }');
    expect(await loadLast()).toMatchObject({ spec: { objectStore: { buckets: [] } }, origin: { file: null } });
  });

  it('says which file is gone', async () => {
    await machine.up({ origin: { file: '/srv/shop/sandbar.yaml', flags: {} } });
    await expect(loadLast()).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: 'the file that cluster "dev" was made from is gone: /srv/shop/sandbar.yaml',
      hint: expect.stringContaining('--file') as string,
    });
  });

  it('is what up takes here where there is none, or none that can be read', async () => {
    await machine.up({ origin: { file: null, flags: { bucket: ['pictures'] } } });
    file('/home/ada/app/sandbar.yaml', 'objectStore: { buckets: [here] }');
    for (const unreadable of ['{"version":1,"fi', { version: 2 }, 7]) {
      await rewrite(unreadable);
      expect((await loadLast()).spec.objectStore.buckets.map(({ name }) => name)).toEqual(['here']);
    }
  });

  it('is of no cluster that is not there', async () => {
    await expect(loadLast()).rejects.toMatchObject({ code: 'CLUSTER_NOT_FOUND' });
  });

  it.each([
    ['v1.37.0', 'use a sandbar with Kubernetes v1.37'],
    ['v1.34.2', 'set kubernetes.version to 1.35 in sandbar.yaml for one sandbar up first'],
    ['v1.33.2', 'use a sandbar with Kubernetes v1.34 for one sandbar up first'],
  ])('keeps up from data of %s', async (kubernetes, way) => {
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-dns');
    await rewrite({ version: 1, file: null, flags: {}, kubernetes });
    const refusal = { code: 'UPGRADE_REFUSED', exitCode: 3, hint: expect.stringContaining(way) as string };
    for (const wish of [{ isDryRun: true }, {}]) await expect(machine.up(wish)).rejects.toMatchObject(refusal);
    expect(machine.runtime.containers.has('sandbar-dev-dns')).toBe(false);
    expect(await record()).toMatchObject({ kubernetes });
  });

  it('says that an upgrade keeps the data, and has its version then', async () => {
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-dns');
    await rewrite({ version: 1, file: null, flags: {}, kubernetes: 'v1.35.1' });
    await machine.up({ spec: { kubernetes: { ...SPEC.kubernetes, isVersionNamed: true } } });
    expect(machine.events).toContainEqual({
      type: 'notice',
      text: `this takes the cluster from Kubernetes v1.35.1 to ${COMPONENT_VERSIONS.kubernetes}; its data are kept`,
    });
    expect(await record()).toMatchObject({ kubernetes: COMPONENT_VERSIONS.kubernetes });
  });
});

describe('an upgrade', () => {
  it('is asked for where nothing names the version', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-dns');
    const record = { version: 1, file: null, flags: {}, kubernetes: 'v1.35.1' };
    await machine.runtime.writeFile(CONTROL_PLANE, { path: RECORD, mode: 0o600, content: JSON.stringify(record) });
    await machine.up({ isDryRun: true });
    await expect(machine.up()).rejects.toMatchObject({
      code: 'CONFIRMATION_NEEDED',
      message: expect.stringContaining(`from Kubernetes v1.35.1 to ${COMPONENT_VERSIONS.kubernetes}`) as string,
      hint: "add --yes to agree, or set it to '1.36', or stay: set kubernetes.version to '1.35' in sandbar.yaml",
    });
    expect(machine.runtime.containers.has('sandbar-dev-dns')).toBe(false);
    await expect(machine.up({ confirm: () => Promise.resolve(false) })).rejects.toMatchObject({ code: 'INTERRUPTED' });
    const questions: string[] = [];
    const confirm = (question: string): Promise<boolean> => Promise.resolve(questions.push(question) > 0);
    await machine.up({ confirm });
    await machine.up({ confirm });
    expect(questions).toHaveLength(1);
  });

  it('goes one minor version at a time, and never back', () => {
    expect(upgradeProblem('v1.36.1', 'v1.36.9')).toBeUndefined();
    expect(upgradeProblem('v1.36.9', 'v1.36.1')).toBeUndefined();
    expect(upgradeProblem('v1.35.9', 'v1.36.0')).toBeUndefined();
    expect(upgradeProblem('v1.34.9', 'v1.36.0')).toBe('too old');
    expect(upgradeProblem('v1.37.0', 'v1.36.9')).toBe('newer');
  });
});
