import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { LABELS } from '../../src/model/names.ts';
import type { Labels, Runtime } from '../../src/model/ports.ts';
import type { ContainerFile, ContainerSpec } from '../../src/model/resources.ts';

/** What every runtime is held to. Names begin with `prefix`, so that runs do not meet each other. */
export function describeRuntime(
  name: string,
  {
    prefix,
    imageRef,
    subnet,
    port,
    createRuntime,
  }: {
    readonly prefix: string;
    readonly imageRef: string;
    /** The first three numbers of a free /24. */
    readonly subnet: string;
    readonly port: number;
    readonly createRuntime: () => Promise<Runtime>;
  },
): void {
  describe(name, () => {
    let runtime: Runtime;
    const labels: Labels = { [LABELS.cluster]: prefix, [LABELS.component]: 'dns' };
    const foreign: Labels = { [LABELS.cluster]: `${prefix}-other` };
    const byCluster = { key: LABELS.cluster, value: prefix };
    const network = { name: prefix, subnet: `${subnet}.0/24`, gateway: `${subnet}.1`, labels };
    const spec: ContainerSpec = {
      name: `${prefix}-main`,
      hostname: 'main',
      imageRef,
      networkName: prefix,
      address: `${subnet}.5`,
      ports: [{ hostPort: port, containerPort: 80 }],
      volumes: [{ volumeName: `${prefix}-data`, path: '/data' }],
      binds: [],
      tmpfs: ['/run'],
      hasReadOnlyRoot: true,
      privileges: { level: 'none', capabilities: ['NET_BIND_SERVICE'] },
      extraHosts: [],
      stopTimeoutS: 1,
    };
    const files: readonly ContainerFile[] = [
      { path: '/etc/sandbar/config.json', mode: 0o600, content: '{"a":"é"}' },
      { path: '/etc/sandbar/pki/a/b.key', mode: 0o640, content: 'key' },
      { path: '/data/seed', mode: 0o644, content: 'seed' },
    ];
    const busybox = (...args: readonly string[]): readonly string[] => ['/bin/busybox', ...args];

    beforeAll(async () => {
      runtime = await createRuntime();
      await removeAll(runtime, prefix);
      await runtime.createNetwork(network);
      await runtime.createVolume({ name: `${prefix}-data`, labels });
      await runtime.createContainer(spec, files, labels);
    });

    afterAll(async () => {
      await removeAll(runtime, prefix);
    });

    it('lists a created container by its label, not running', async () => {
      const [container, ...others] = await runtime.listContainers(byCluster);
      expect(others).toEqual([]);
      expect(container).toMatchObject({
        name: spec.name,
        state: 'created',
        imageRef,
        labels,
        ports: spec.ports,
        address: '',
      });
    });

    it('attaches a container to another network, and takes it off again however often', async () => {
      const beside = subnet.replace(/\d+$/, (number) => String(Number(number) + 1));
      const other = { ...network, name: `${prefix}-other`, subnet: `${beside}.0/24`, gateway: `${beside}.1` };
      const addresses = async () => (await runtime.listContainers(byCluster))[0]?.addresses;
      await runtime.createNetwork(other);
      await runtime.connectNetwork(other.name, spec.name, `${beside}.9`);
      expect(await addresses()).toEqual({ [prefix]: spec.address, [other.name]: `${beside}.9` });
      for (const networkName of [other.name, other.name, `${prefix}-missing`]) {
        await runtime.disconnectNetwork(networkName, spec.name);
      }
      await runtime.disconnectNetwork(other.name, `${prefix}-missing`);
      expect(await addresses()).toEqual({ [prefix]: spec.address });
      await runtime.removeNetwork(other.name);
    });

    it('lists networks with their subnets, and volumes by their label', async () => {
      const found = (await runtime.listNetworks()).filter((candidate) => candidate.name === prefix);
      expect(found).toMatchObject([{ name: prefix, subnets: [network.subnet], labels }]);
      expect(await runtime.listVolumes(byCluster)).toEqual([{ name: `${prefix}-data`, labels }]);
    });

    it('creates what is there already without complaint', async () => {
      await runtime.createNetwork(network);
      await runtime.createVolume({ name: `${prefix}-data`, labels });
      const before = await runtime.listContainers(byCluster);
      const id = await runtime.createContainer(spec, files, labels);
      const after = await runtime.listContainers(byCluster);
      expect(after).toHaveLength(1);
      expect(after[0]?.id).toBe(id);
      expect(id).not.toBe(before[0]?.id);
    });

    it('leaves alone what has the name and belongs to others', async () => {
      const taken = expect.objectContaining({ code: 'NAME_TAKEN' }) as unknown;
      await expect(runtime.createContainer(spec, files, foreign)).rejects.toEqual(taken);
      await expect(runtime.createNetwork({ ...network, labels: foreign })).rejects.toEqual(taken);
      await expect(runtime.createVolume({ name: `${prefix}-data`, labels: foreign })).rejects.toEqual(taken);
      expect(await runtime.listContainers(byCluster)).toHaveLength(1);
    });

    it('refuses a subnet that another network has', async () => {
      const other = { ...network, name: `${prefix}-clash` };
      await expect(runtime.createNetwork(other)).rejects.toMatchObject({ code: 'SUBNET_IN_USE' });
    });

    it('says that an image is not there', async () => {
      const unknown = { ...spec, name: `${prefix}-unknown`, imageRef: 'sandbar-test/none:1' };
      await expect(runtime.createContainer(unknown, [], labels)).rejects.toMatchObject({ code: 'IMAGE_UNAVAILABLE' });
      expect(await runtime.findImageId('sandbar-test/none:1')).toBeUndefined();
      expect(await runtime.inspectImage('sandbar-test/none:1')).toBeUndefined();
    });

    it('reads files before the start', async () => {
      expect(await runtime.readFile(spec.name, '/etc/sandbar/config.json')).toBe('{"a":"é"}');
      expect(await runtime.readFile(spec.name, '/data/seed')).toBe('seed');
      expect(await runtime.readFile(spec.name, '/etc/sandbar/none')).toBeUndefined();
      expect(await runtime.readFile(`${prefix}-none`, '/etc/hosts')).toBeUndefined();
    });

    it('starts, and a second start changes nothing', async () => {
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'created', startedMs: undefined });
      await runtime.startContainer(spec.name);
      await runtime.startContainer(spec.name);
      const run = await runtime.inspectState(spec.name);
      expect(run).toMatchObject({ state: 'running', exitCode: 0 });
      expect(Math.abs(Date.now() - (run?.startedMs ?? 0))).toBeLessThan(60_000);
      const description = await runtime.describeContainer(spec.name);
      expect(description).toMatchObject({ Name: `/${spec.name}`, State: { Status: 'running' } });
      expect(await runtime.describeContainer(`${prefix}-none`)).toBeUndefined();
      const [container] = await runtime.listContainers(byCluster);
      expect(container).toMatchObject({ state: 'running', address: spec.address, ports: spec.ports });
    });

    it('writes files with their modes', async () => {
      const modeOf = async (path: string): Promise<string> =>
        (await runtime.exec(spec.name, busybox('stat', '-c', '%a', path))).stdout;
      expect(await modeOf('/etc/sandbar/config.json')).toBe('600\n');
      expect(await modeOf('/etc/sandbar/pki/a/b.key')).toBe('640\n');
    });

    it('passes on exit codes and both outputs', async () => {
      expect(await runtime.exec(spec.name, busybox('echo', 'hello'))).toEqual({
        exitCode: 0,
        stdout: 'hello\n',
        stderr: '',
      });
      expect(await runtime.exec(spec.name, busybox('false'))).toMatchObject({ exitCode: 1 });
      const failed = await runtime.exec(spec.name, busybox('cat', '/none'));
      expect(failed).toMatchObject({ exitCode: 1, stdout: '' });
      expect(failed.stderr).toMatch(/no such file/i);
    });

    it('feeds input and closes it', async () => {
      expect((await runtime.exec(spec.name, busybox('cat'), { stdin: 'in and out' })).stdout).toBe('in and out');
      expect((await runtime.exec(spec.name, busybox('cat'), { stdin: '' })).stdout).toBe('');
      let seen = '';
      const onOutput = (text: string): void => void (seen += text);
      await runtime.exec(spec.name, busybox('echo', 'as it comes'), { onOutput });
      expect(seen).toBe('as it comes\n');
    });

    it('rejects with the reason of the signal', async () => {
      const reason = new Error('enough');
      const controller = new AbortController();
      const running = runtime.exec(spec.name, busybox('sleep', '30'), { signal: controller.signal });
      setTimeout(() => {
        controller.abort(reason);
      }, 200);
      await expect(running).rejects.toBe(reason);
    });

    it('refuses a port that is taken, and names it', async () => {
      const second = { ...spec, name: `${prefix}-second`, address: `${subnet}.6`, volumes: [] };
      await runtime.createContainer(second, [], labels);
      const refusal = await runtime.startContainer(second.name).catch((error: unknown) => error);
      expect(refusal).toMatchObject({ code: 'PORT_IN_USE' });
      expect((refusal as Error).message).toContain(String(port));
      await runtime.removeContainer(second.name);
    });

    it('says which folder of the host is missing', async () => {
      const binds = [{ source: '/none/sandbar/of this', path: '/source' }];
      const bound = { ...spec, name: `${prefix}-bound`, networkName: 'none', address: '', ports: [], binds };
      await expect(runtime.createContainer(bound, [], labels)).rejects.toMatchObject({
        code: 'NOT_FOUND',
        message: expect.stringContaining('/none/sandbar/of this') as string,
      });
      await runtime.removeContainer(bound.name);
    });

    it('runs a container without a network that sees a folder of the host', async () => {
      const alone = { ...spec, name: `${prefix}-alone`, networkName: 'none', address: '', ports: [], volumes: [] };
      await runtime.createContainer({ ...alone, binds: [{ source: '/etc', path: '/source' }] }, [], labels);
      await runtime.startContainer(alone.name);
      expect(await runtime.inspectState(alone.name)).toMatchObject({ state: 'running' });
      await runtime.removeContainer(alone.name);
    });

    it('hands standard output over in place of the result, and reads input until it ends', async () => {
      const [stdin, output] = [new PassThrough(), new PassThrough()];
      const running = runtime.exec(spec.name, busybox('cat'), { stdin, output });
      stdin.write('first ');
      stdin.end('second');
      expect(await running).toEqual({ exitCode: 0, stdout: '', stderr: '' });
      output.end();
      expect(await text(output)).toBe('first second');
    });

    it('reads the log, from the end where it is asked so', async () => {
      expect(await collect(runtime.logs(spec.name, {}))).toEqual(['first', 'second']);
      expect(await collect(runtime.logs(spec.name, { tail: 1 }))).toEqual(['second']);
    });

    it('follows the log until the signal', async () => {
      const controller = new AbortController();
      const lines: string[] = [];
      for await (const line of runtime.logs(spec.name, { isFollowing: true, signal: controller.signal })) {
        lines.push(line);
        if (lines.length === 2) controller.abort();
      }
      expect(lines).toEqual(['first', 'second']);
    });

    it('freezes and goes on, and a second time changes nothing', async () => {
      await runtime.pauseContainer(spec.name);
      await runtime.pauseContainer(spec.name);
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'paused' });
      const [frozen] = await runtime.listContainers(byCluster);
      expect(frozen).toMatchObject({ state: 'paused', address: spec.address, ports: spec.ports });
      await expect(runtime.exec(spec.name, busybox('echo'))).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
      await expect(runtime.startContainer(spec.name)).rejects.toMatchObject({ code: 'CONFLICT' });
      await runtime.unpauseContainer(spec.name);
      await runtime.unpauseContainer(spec.name);
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'running' });
      expect((await runtime.exec(spec.name, busybox('echo', 'here'))).stdout).toBe('here\n');
    });

    it('writes a file while it runs, and over one that is there, below a read-only root', async () => {
      await runtime.writeFile(spec.name, { path: '/data/note', mode: 0o600, content: 'one' });
      await runtime.writeFile(spec.name, { path: '/data/note', mode: 0o640, content: 'two' });
      expect(await runtime.readFile(spec.name, '/data/note')).toBe('two');
      const rooted = { path: '/note', mode: 0o600, content: '' };
      await expect(runtime.writeFile(spec.name, rooted)).rejects.toMatchObject({ code: 'DOCKER_FAILED' });
    });

    it('restarts what runs and what is frozen', async () => {
      await runtime.restartContainer(spec.name, { timeoutS: 0 });
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'running' });
      expect(await collect(runtime.logs(spec.name, { tail: 4 }))).toEqual(['first', 'second', 'first', 'second']);
      await runtime.pauseContainer(spec.name);
      await runtime.restartContainer(spec.name, { timeoutS: 0 });
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'running' });
    });

    it('stops, and a second stop changes nothing', async () => {
      await runtime.stopContainer(spec.name, { timeoutS: 0 });
      await runtime.stopContainer(spec.name, { timeoutS: 0 });
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'exited', exitCode: 137 });
      await expect(runtime.exec(spec.name, busybox('echo'))).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
      const [container] = await runtime.listContainers(byCluster);
      expect(container?.ports).toEqual(spec.ports);
    });

    it('refuses to freeze what does not run, and writes a file into it', async () => {
      await expect(runtime.pauseContainer(spec.name)).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
      await runtime.unpauseContainer(spec.name);
      await runtime.writeFile(spec.name, { path: '/data/note', mode: 0o600, content: 'three' });
      expect(await runtime.readFile(spec.name, '/data/note')).toBe('three');
      await runtime.restartContainer(spec.name, { timeoutS: 0 });
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'running' });
      await runtime.pauseContainer(spec.name);
      await runtime.stopContainer(spec.name, { timeoutS: 0 });
      expect(await runtime.inspectState(spec.name)).toMatchObject({ state: 'exited', exitCode: 137 });
    });

    it('says that a container is not there', async () => {
      const none = `${prefix}-none`;
      expect(await runtime.inspectState(none)).toBeUndefined();
      await expect(runtime.startContainer(none)).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(runtime.restartContainer(none, { timeoutS: 0 })).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(runtime.pauseContainer(none)).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(runtime.unpauseContainer(none)).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(runtime.writeFile(none, { path: '/data/note', mode: 0o600, content: '' })).rejects.toMatchObject({
        code: 'NOT_FOUND',
      });
      await expect(runtime.exec(none, ['true'])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await expect(collect(runtime.logs(none, {}))).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await runtime.stopContainer(none, { timeoutS: 0 });
    });

    it('keeps what a volume holds when its container is replaced', async () => {
      await runtime.removeContainer(spec.name);
      await runtime.createContainer(spec, [], labels);
      expect(await runtime.readFile(spec.name, '/data/seed')).toBe('seed');
      expect(await runtime.readFile(spec.name, '/etc/sandbar/config.json')).toBeUndefined();
    });

    it('refuses to remove a volume that is in use', async () => {
      await expect(runtime.removeVolume(`${prefix}-data`)).rejects.toMatchObject({ code: 'CONFLICT' });
    });

    it('removes, and a second removal changes nothing', async () => {
      for (let time = 0; time < 2; time += 1) {
        await runtime.removeContainer(spec.name);
        await runtime.removeVolume(`${prefix}-data`);
        await runtime.removeNetwork(prefix);
      }
      expect(await runtime.listContainers(byCluster)).toEqual([]);
      expect(await runtime.listVolumes(byCluster)).toEqual([]);
      expect((await runtime.listNetworks()).map((found) => found.name)).not.toContain(prefix);
    });
  });
}

/** Leftovers of an interrupted run. */
async function removeAll(runtime: Runtime, prefix: string): Promise<void> {
  const label = { key: LABELS.cluster, value: prefix };
  for (const { id } of await runtime.listContainers(label)) await runtime.removeContainer(id);
  for (const { name } of await runtime.listVolumes(label)) await runtime.removeVolume(name);
  await runtime.removeNetwork(prefix);
}

async function collect(lines: AsyncIterable<string>): Promise<readonly string[]> {
  const collected: string[] = [];
  for await (const line of lines) collected.push(line);
  return collected;
}
