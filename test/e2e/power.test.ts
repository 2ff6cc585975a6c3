/** A cluster that is stopped, frozen and started, that is older than the command line, and whose certificates end. */
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import type { Readable } from 'node:stream';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { CERTIFICATES, parseIdentity, type Identity, type KeptIdentity } from '../../src/model/identity.ts';
import { COMPONENT_VERSIONS } from '../../src/model/versions.ts';
import { createTar, readMember, readTar, type TarFile } from '../../src/model/tar.ts';
import { isDockerMissing, TEST_IMAGE } from '../fixtures/docker.ts';
import { workload } from './fixtures/keeper.ts';
import { mountContainers } from './mounts.ts';
import { COMPONENTS, createSandbox, eventually, type Sandbox } from './support.ts';

const RECORD = '/etc/sandbar/last-up.json';
const DAY_MS = 24 * 60 * 60 * 1000;

describe.skipIf(isDockerMissing)('a cluster with a claim, a bucket and a live mount', () => {
  const sandbox = createSandbox('power');
  const source = (): string => join(sandbox.directory, 'src');
  let edits = 0;

  beforeAll(async () => {
    await mkdir(source());
    await sandbox.writeConfig('objectStore: { buckets: [declared] }\n');
    await sandbox.up(['--bucket', 'flagged', '--file', 'sandbar.yaml']);
    await deployKeeper(sandbox);
    await sandbox.must(['mount', 'src', 'deployment/keeper:/src']);
    await expectAlive();
  });

  /** The pod has its data, and an edit of the mounted folder. */
  async function expectAlive(): Promise<void> {
    edits += 1;
    await writeFile(join(source(), 'edit'), `edit ${String(edits)}`);
    await expectData(sandbox, `first\nedit ${String(edits)}`, ['/data/kept', '/src/edit']);
    const buckets = await sandbox.must(['bucket', 'ls']);
    for (const bucket of ['declared', 'flagged']) expect(buckets).toContain(bucket);
  }

  it('is stopped, says so in every command, and starts from anywhere as it was', async () => {
    const [ids, ports] = [await sandbox.containerIds(), await sandbox.ports()];
    expect(await sandbox.must(['stop'])).toContain('sandbar start brings it back');
    expect(await states(sandbox)).toEqual(['exited']);
    expect(await sandbox.must(['stop'])).toContain('stopped already');
    await expectRefusals(sandbox, 'stopped', 'sandbar start');
    // Neither the file here nor the default: what `up` was given.
    await mkdir(join(sandbox.home, 'elsewhere'), { recursive: true });
    const text = await sandbox.must(['start'], { workingDirectory: join(sandbox.home, 'elsewhere') });
    expect(text).toContain('is ready');
    expect(await sandbox.containerIds()).toEqual(ids);
    expect(await sandbox.ports()).toEqual(ports);
    await expectAlive();
    expect(await sandbox.must(['start'])).toContain('nothing to change');
  });

  it('is frozen, takes no processor, and goes on where it was', async () => {
    const before = await sandbox.getObject('pods', '-l', 'app=keeper');
    expect(await sandbox.must(['pause'])).toContain('sandbar resume lets it go on');
    expect(await states(sandbox)).toEqual(['paused']);
    for (const component of COMPONENTS) {
      const usage = async (): Promise<number> =>
        (await sandbox.docker.getContainer(sandbox.containerName(component)).stats({ stream: false })).cpu_stats
          .cpu_usage.total_usage;
      expect(await usage()).toBe(await usage());
    }
    expect(await sandbox.must(['pause'])).toContain('paused already');
    await expectRefusals(sandbox, 'paused', 'sandbar resume');
    await sandbox.must(['resume']);
    expect(await sandbox.mustKubectl(['get', '--raw', '/readyz', '--request-timeout=2s'])).toBe('ok');
    expect(await sandbox.must(['resume'])).toContain('running already');
    const { items } = await sandbox.getObject('pods', '-l', 'app=keeper');
    expect(items.map(({ metadata, status }) => [metadata.uid, restartsOf(status)])).toEqual(
      before.items.map(({ metadata, status }) => [metadata.uid, restartsOf(status)]),
    );
    await expectAlive();
  });

  it('is resumed by up, and stopped while it is frozen', async () => {
    await sandbox.must(['pause']);
    expect((await sandbox.up(['--bucket', 'flagged'])).steps.map(({ cause }) => cause)).toEqual(
      [...COMPONENTS, 'mounts'].map(() => 'it is paused'),
    );
    await sandbox.must(['pause']);
    await sandbox.must(['stop']);
    expect(await states(sandbox)).toEqual(['exited']);
    await sandbox.must(['start']);
    await expectAlive();
  });

  it.each([...COMPONENTS, 'mounts'])('has %s restarted alone, and answers then', async (component) => {
    const before = await startTimes(sandbox);
    await sandbox.must(['restart', component]);
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    const after = await startTimes(sandbox);
    const changed = Object.keys(after).filter((name) => after[name] !== before[name]);
    expect(changed).toEqual([component]);
    await expectAlive();
  });

  it('has all of it restarted', async () => {
    await sandbox.must(['restart']);
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    await expectAlive();
  });

  it.each(['SIGINT', 'SIGKILL'] as const)(
    'is stopped, started, frozen and resumed by a second run after %s',
    async (signal) => {
      for (const verb of ['stop', 'start', 'pause', 'resume']) {
        const first = await sandbox.run([verb, '-o', 'ndjson'], {
          onLine: (line, kill) => {
            if ((JSON.parse(line) as { type: string }).type === 'step-finished') kill(signal);
          },
        });
        expect(first.exitCode).not.toBe(0);
        await sandbox.must([verb]);
        const expected = { stop: 'exited', pause: 'paused' }[verb] ?? 'running';
        expect(await states(sandbox)).toEqual([expected]);
      }
      await expectAlive();
    },
  );

  it('takes turns with two commands at once', async () => {
    const [stopped, started] = await Promise.all([sandbox.run(['stop']), sandbox.run(['start'])]);
    expect([stopped.exitCode, started.exitCode]).toEqual([0, 0]);
    expect(stopped.stderr + started.stderr).toContain('waiting for another sandbar');
    expect(await states(sandbox)).toHaveLength(1);
    await sandbox.must(['start']);
    await expectAlive();
  });

  it('starts beside a port that was taken meanwhile, and says so', async () => {
    const { http } = await sandbox.ports();
    await sandbox.must(['stop']);
    const other = createServer().listen(http, '127.0.0.1');
    try {
      await eventually('the port is taken', () => Promise.resolve(other.listening || undefined));
      const { exitCode, stderr } = await sandbox.run(['start']);
      expect(exitCode).toBe(0);
      expect(stderr).toMatch(/port \d+ is used by .*: ingress is on \d+/);
      expect((await sandbox.ports()).http).not.toBe(http);
    } finally {
      other.close();
    }
    await expectAlive();
  });

  it('says which file is gone, and takes another', async () => {
    await sandbox.must(['up', '--file', await moved()]);
    await sandbox.must(['stop']);
    await writeFile(join(sandbox.directory, 'other.yaml'), 'objectStore: { buckets: [declared] }\n');
    const refused = await sandbox.run(['start', '--file', 'none.yaml']);
    expect(refused.exitCode).toBe(2);
    await sandbox.must(['start', '--file', 'other.yaml']);
    await expectAlive();

    async function moved(): Promise<string> {
      const file = join(sandbox.directory, 'moved.yaml');
      await writeFile(file, 'objectStore: { buckets: [declared, flagged] }\n');
      return file;
    }
  });

  it('is removed while it is frozen', async () => {
    await sandbox.must(['pause']);
    await sandbox.must(['down']);
    expect(await sandbox.containerIds()).toEqual({});
    await sandbox.must(['start']);
    await expectAlive();
  });
});

describe.skipIf(isDockerMissing)('a cluster of another Sandbar', () => {
  const sandbox = createSandbox('older');

  beforeAll(async () => {
    await sandbox.up();
    await deployKeeper(sandbox);
  });

  const record = (kubernetes: string): Promise<void> =>
    put(sandbox, sandbox.containerName('control-plane'), [
      { path: RECORD, mode: 0o600, content: JSON.stringify({ version: 1, file: null, flags: {}, kubernetes }) },
    ]);

  it('is told what changes, and keeps its data', async () => {
    await replaceImage(sandbox, 'dns', 'sandbar/dns:of-an-older-sandbar');
    await record('v1.35.4');
    const dry = await sandbox.run(['up', '--dry-run']);
    expect(dry.stdout.trim().split('\n')).toEqual([
      'remove container/dns (image changed)',
      'create container/dns (image changed)',
    ]);
    const notice = `from Kubernetes v1.35.4 to ${COMPONENT_VERSIONS.kubernetes}; its data are kept`;
    expect(dry.stderr).toContain(notice);
    const refused = await sandbox.run(['up']);
    expect(refused.exitCode).toBe(2);
    expect(refused.stderr).toContain("add --yes to agree, or set it to '1.36', or stay");
    const { events } = await sandbox.up(['--yes']);
    expect(events).toContainEqual(expect.objectContaining({ text: expect.stringContaining(notice) as string }));
    expect((await sandbox.inspect('dns')).Config.Image).not.toContain('older');
    await expectData(sandbox, 'first\n', ['/data/kept']);
    expect((await sandbox.up()).steps).toEqual([]);
  });

  it.each(['v1.34.9', 'v1.99.0'])('is left alone when its data are of Kubernetes %s', async (kubernetes) => {
    await replaceImage(sandbox, 'dns', 'sandbar/dns:of-an-older-sandbar');
    await record(kubernetes);
    const before = await sandbox.containerIds();
    for (const argv of [['up', '--dry-run'], ['up'], ['start']]) {
      const { exitCode, stderr } = await sandbox.run(argv);
      expect(exitCode).toBe(3);
      expect(stderr).toContain(`the cluster's data are of Kubernetes ${kubernetes}`);
      expect(stderr).toContain('sandbar down --volumes');
    }
    expect(await sandbox.containerIds()).toEqual(before);
    await record(COMPONENT_VERSIONS.kubernetes);
    await sandbox.up();
    await expectData(sandbox, 'first\n', ['/data/kept']);
  });
});

describe.skipIf(isDockerMissing)('a cluster whose certificates end', () => {
  const sandbox = createSandbox('certificates');

  beforeAll(async () => {
    await sandbox.up();
    await deployKeeper(sandbox);
  });

  it.each([
    ['in ten days', 10, false],
    ['a day ago', -1, false],
    ['a day ago, with their authority', -1, true],
  ])('%s has them renewed, and keeps its data', async (_, days, hasNewAuthority) => {
    const before = await readIdentity(sandbox);
    const { ca, frontProxyCa, serviceAccount, objectStore } = before;
    const kept = { serviceAccount, objectStore };
    const ending = await mintEndingIn(days, before, hasNewAuthority ? kept : { ...kept, ca, frontProxyCa });
    await sandbox.must(['stop']);
    await giveIdentity(sandbox, before, ending);
    for (const component of COMPONENTS) {
      await sandbox.docker.getContainer(sandbox.containerName(component)).start();
    }
    const ends = await eventually('the API server shows its certificate', () => endOfServed(sandbox));
    expect(ends).toBeLessThan(Date.now() + 11 * DAY_MS);

    const { events } = await sandbox.up();
    expect(events).toContainEqual(
      expect.objectContaining({ text: expect.stringMatching(/^certificates.* are renewed/) as string }),
    );
    expect(await endOfServed(sandbox)).toBeGreaterThan(Date.now() + 3000 * DAY_MS);
    const after = await readIdentity(sandbox);
    expect(after).toMatchObject({ serviceAccount, objectStore });
    expect(after.ca.certificate === ending.ca.certificate).toBe(!hasNewAuthority);
    await expectData(sandbox, 'first\n', ['/data/kept']);
    await eventually('pods are given the authority', async () => {
      const { data } = await sandbox.getObject('configmap', 'kube-root-ca.crt');
      return data['ca.crt']?.startsWith(after.ca.certificate) === true || undefined;
    });
    expect((await sandbox.up()).steps).toEqual([]);
  });
});

/** A pod that writes its claim once and never again. */
async function deployKeeper(sandbox: Sandbox): Promise<void> {
  await sandbox.must(['image', 'load', TEST_IMAGE]);
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: workload('keeper') });
  await expectData(sandbox, 'first\n', ['/data/kept']);
}

/** Files in the pod, one after the other. */
async function expectData(sandbox: Sandbox, text: string, paths: readonly string[]): Promise<void> {
  const command = ['exec', '--request-timeout=5s', 'deployment/keeper', '--', '/bin/busybox', 'cat', ...paths];
  await eventually(`the pod reads ${JSON.stringify(text)}`, async () => {
    const { exitCode, stdout } = await sandbox.kubectl(command);
    return (exitCode === 0 && stdout === text) || undefined;
  });
}

/** Each state that a container of the cluster has. */
async function states(sandbox: Sandbox): Promise<readonly string[]> {
  const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
  const containers = await sandbox.docker.listContainers({ all: true, filters });
  return [...new Set(containers.map(({ State: state }) => state))];
}

async function startTimes(sandbox: Sandbox): Promise<Readonly<Record<string, string>>> {
  const [mount] = await mountContainers(sandbox);
  const names = [
    ...COMPONENTS.map((name) => [name, sandbox.containerName(name)]),
    ['mounts', mount?.Id ?? ''],
  ] as const;
  const times = names.map(async ([name = '', ref = '']) => {
    const { State: state } = await sandbox.docker.getContainer(ref).inspect();
    return [name, state.StartedAt] as const;
  });
  return Object.fromEntries(await Promise.all(times));
}

function restartsOf(status: Readonly<Record<string, unknown>>): number {
  const containers = status['containerStatuses'] as readonly { readonly restartCount: number }[];
  return containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
}

async function expectRefusals(sandbox: Sandbox, state: string, fix: string): Promise<void> {
  for (const argv of [['kubectl', 'get', 'pods'], ['mounts'], ['mount', 'src'], ['bucket', 'ls'], ['restart']]) {
    const { exitCode, stderr } = await sandbox.run(argv);
    expect(stderr).toContain(`✖ cluster "${sandbox.name}" is ${state}\n  fix: ${fix}\n`);
    expect(exitCode).toBe(4);
  }
  const { exitCode, stdout } = await sandbox.run(['status']);
  expect(stdout).toContain(`is ${state}: ${fix}`);
  expect(exitCode).toBe(1);
  const list = JSON.parse(await sandbox.must(['list', '-o', 'json'])) as { name: string; state: string }[];
  expect(list.find(({ name }) => name === sandbox.name)?.state).toBe(state);
}

/** Writes files into a container, each through the folder that it is in. */
async function put(sandbox: Sandbox, container: string, files: readonly TarFile[]): Promise<void> {
  for (const { path, ...file } of files) {
    const [, folder = '/', name = ''] = /^(.*)\/([^/]+)$/.exec(path) ?? [];
    await sandbox.docker.getContainer(container).putArchive(createTar([{ ...file, path: name }]), { path: folder });
  }
}

/** All that a container was given. */
async function filesOf(sandbox: Sandbox, container: string): Promise<readonly TarFile[]> {
  const archive = (await sandbox.docker.getContainer(container).getArchive({ path: '/etc/sandbar' })) as Readable;
  const files: TarFile[] = [];
  for await (const member of readTar(archive)) {
    if (member.kind !== 'file') continue;
    files.push({ path: `/etc/${member.path}`, mode: 0o600, content: (await readMember(member)).toString('utf8') });
  }
  return files;
}

/** Makes a component's container anew as an older Sandbar would have: of another image, which its label says. */
async function replaceImage(sandbox: Sandbox, component: 'dns', imageRef: string): Promise<void> {
  const { docker } = sandbox;
  const name = sandbox.containerName(component);
  const [repo = '', tag = ''] = imageRef.split(':');
  const { Config: config, HostConfig: host, Image: image, NetworkSettings: network } = await sandbox.inspect(component);
  await docker.getImage(image).tag({ repo, tag });
  const files = await filesOf(sandbox, name);
  await docker.getContainer(name).remove({ force: true, v: true });
  const fingerprint = JSON.parse(config.Labels['dev.sandbar.fingerprint'] ?? '') as Record<string, string>;
  const [[networkName, endpoint] = ['', undefined]] = Object.entries(network.Networks);
  const created = await docker.createContainer({
    name,
    Hostname: config.Hostname,
    Image: imageRef,
    Labels: {
      ...config.Labels,
      'dev.sandbar.fingerprint': JSON.stringify({ ...fingerprint, image: 'of an older sandbar' }),
    },
    HostConfig: host,
    NetworkingConfig: {
      EndpointsConfig: { [networkName]: { IPAMConfig: endpoint?.IPAMConfig as object } },
    },
  });
  await created.putArchive(createTar(files), { path: '/' });
  await created.start();
  // The name alone: the image has its own too.
  await docker.getImage(imageRef).remove();
}

async function readIdentity(sandbox: Sandbox): Promise<Identity> {
  const files = await filesOf(sandbox, sandbox.containerName('control-plane'));
  return parseIdentity(String(files.find(({ path }) => path === '/etc/sandbar/identity.json')?.content))!;
}

/** An identity made so long ago that what is new of it ends in so many days. */
async function mintEndingIn(days: number, { request }: Identity, kept: KeptIdentity): Promise<Identity> {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + (days - 3650) * DAY_MS });
  try {
    return await mintIdentity(request, await mintRoot('test'), kept);
  } finally {
    vi.useRealTimers();
  }
}

/** Puts one identity in place of another wherever a container was given something of it, in whatever form. */
async function giveIdentity(sandbox: Sandbox, before: Identity, after: Identity): Promise<void> {
  const pairsOf = ({ ca, frontProxyCa, certificates }: Identity) =>
    [ca, frontProxyCa, ...CERTIFICATES.map((name) => certificates[name])].flatMap((pair) => [
      pair.certificate,
      pair.key,
    ]);
  const forms = [
    (text: string) => text,
    (text: string) => JSON.stringify(text).slice(1, -1),
    (text: string) => Buffer.from(text).toString('base64'),
  ];
  const next = pairsOf(after);
  const changes = pairsOf(before).flatMap((text, index) =>
    forms.map((form) => [form(text), form(next[index] ?? '')] as const),
  );
  for (const component of COMPONENTS) {
    const container = sandbox.containerName(component);
    const files = await filesOf(sandbox, container);
    const changed = files.map((file) => ({
      ...file,
      content: changes.reduce((content, [from, to]) => content.replaceAll(from, to), String(file.content)),
    }));
    await put(
      sandbox,
      container,
      changed.filter(({ content }, index) => content !== files[index]?.content),
    );
  }
}

/** When the certificate ends that the API server shows. */
async function endOfServed(sandbox: Sandbox): Promise<number | undefined> {
  const { api } = await sandbox.ports();
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port: api, rejectUnauthorized: false }, () => {
      resolve(Date.parse(socket.getPeerCertificate().valid_to));
      socket.destroy();
    });
    socket.on('error', () => resolve(undefined));
  });
}
