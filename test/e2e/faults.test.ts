/** What goes wrong on a user's machine: each fault is one clear error with its fix, and harms nothing. */
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer } from 'node:net';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, isDockerMissing, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import { openEngineProxy, type EngineProxy, type Interruption } from './engine-proxy.ts';
import { createSandbox, ROOT, SANDBAR, type RunResult, type Sandbox } from './support.ts';

describe.skipIf(isDockerMissing)('before anything is made', () => {
  const sandbox = createSandbox('faults');

  afterEach(async () => {
    expect(await everythingOf(sandbox)).toEqual([]);
  });

  it('an engine that is absent is an error with the way to get one', async () => {
    const env = { DOCKER_HOST: 'unix:///nowhere/docker.sock' };
    for (const command of [['up'], ['status'], ['down'], ['list'], ['image', 'ls']]) {
      const result = await sandbox.run(command, { env });
      expect(result).toMatchObject({ exitCode: 3, stdout: '' });
      expect(result.stderr).toMatch(/^✖ .*unix:\/\/\/nowhere\/docker\.sock/);
      expect(result.stderr).toContain('fix: ');
    }
    const { exitCode, stdout } = await sandbox.run(['up', '-o', 'json'], { env });
    expect(exitCode).toBe(3);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'DOCKER_MISSING', fix: expect.any(String) as string } });
  });

  it.skipIf(process.getuid?.() !== 0)(
    'an engine that may not be used is an error with the way to be let in',
    async () => {
      const nobody = 65_534;
      const env = { ...sandbox.env, HOME: '/nonexistent', USER: 'nobody', XDG_STATE_HOME: '/nonexistent' };
      const child = spawn(process.execPath, [SANDBAR, 'status'], { uid: nobody, gid: nobody, env, cwd: '/' });
      const ended = once(child, 'close') as Promise<[number]>;
      const [stderr, [exitCode]] = await Promise.all([text(child.stderr), ended]);
      expect(exitCode).toBe(3);
      expect(stderr).toContain('no permission to use the Docker engine');
      expect(stderr).toContain('fix: sudo usermod -aG docker nobody');
    },
  );

  it.each(['tcp://192.0.2.1:2376', 'ssh://ada@build.example'])(
    'an engine elsewhere is refused: %s',
    async (address) => {
      const { exitCode, stderr } = await sandbox.run(['up'], { env: { DOCKER_HOST: address } });
      expect(exitCode).toBe(3);
      expect(stderr).toContain(address);
      expect(stderr).toContain('fix: unset DOCKER_HOST');
    },
  );

  it('an engine that is too old is refused with both versions', async () => {
    const path = join(sandbox.home, 'old.sock');
    const server: HttpServer = createHttpServer((_, response) => {
      response.setHeader('api-version', '1.24').end('OK');
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const { exitCode, stderr } = await sandbox.run(['up'], { env: { DOCKER_HOST: `unix://${path}` } });
      expect(exitCode).toBe(3);
      expect(stderr).toContain('API 1.24, needed 1.41');
      expect(stderr).toContain('fix: upgrade Docker');
    } finally {
      server.close();
    }
  });

  it('a port that the user wants and another has is an error that names who has it', async () => {
    const { port, close } = await listen();
    try {
      const { exitCode, stderr } = await sandbox.run(['up', '--http-port', String(port)]);
      expect(exitCode).toBe(3);
      expect(stderr).toContain(`✖ port ${String(port)} is used by `);
      if (process.platform === 'linux') expect(stderr).toContain(`(pid ${String(process.pid)})`);
      expect(stderr).toContain('set ports.http in sandbar.yaml');
    } finally {
      await close();
    }
  });

  it('a usual port that another has gives way to the next free one, and it is said', async () => {
    const { close } = await listen(9000);
    try {
      const { ports, events } = await sandbox.up(['--dry-run']);
      expect(ports.objectStore).not.toBe(9000);
      const notice = events.find(
        ({ type, text: notice = '' }) => type === 'notice' && notice.startsWith('port 9000 is used by '),
      );
      expect(notice?.text).toContain(`object-store is on ${String(ports.objectStore)}`);
    } finally {
      await close();
    }
  });

  it('a subnet that another network has is an error that names the network', async () => {
    const { docker } = sandbox;
    const Name = `${sandbox.name}-foreign`;
    const network = await docker.createNetwork({
      Name,
      IPAM: { Driver: 'default', Config: [{ Subnet: '10.213.8.0/23' }] },
    });
    try {
      await sandbox.writeConfig('network: { subnet: 10.213.9.0/24 }\n');
      const { exitCode, stderr } = await sandbox.run(['up']);
      expect(exitCode).toBe(3);
      expect(stderr).toContain(`subnet 10.213.9.0/24 overlaps with 10.213.8.0/23 of Docker network ${Name}`);
      expect(stderr).toContain('fix: set network.subnet');
    } finally {
      await network.remove();
      await sandbox.writeConfig('');
    }
  });

  it('everything that is wrong in sandbar.yaml is told at once, with its place and what may be meant', async () => {
    await sandbox.writeConfig(
      ['kubernets: {}', 'ports:', '  http: 99999', 'objectStore:', '  buckets: [Pictures]', 'name: "-bad-"', ''].join(
        '\n',
      ),
    );
    const { exitCode, stdout, stderr } = await sandbox.run(['up'], { env: { SANDBAR_NAME: undefined } });
    await sandbox.writeConfig('');
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    for (const [line, words] of [
      [1, 'kubernetes'],
      [3, '99999'],
      [5, 'Pictures'],
      [6, '-bad-'],
    ] as const) {
      expect(stderr).toMatch(new RegExp(`sandbar\\.yaml:${String(line)}:\\d+: .*${words}`));
    }
  });

  it.each([
    [['up', '--name', 'Not_A_Name'], 'Not_A_Name'],
    [['up', '--http-port', 'eighty'], 'eighty'],
    [['up', '--bogus'], '--bogus'],
    [['upp'], 'up'],
    [['logs', 'etcd'], 'etcd'],
    [['status', '--timeout', 'soon'], 'soon'],
    [['up', '--file', 'absent.yaml'], 'absent.yaml'],
  ])('a wrong command line ends with 2 and says what is wrong: %j', async (args, words) => {
    const { exitCode, stdout, stderr } = await sandbox.run(args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toContain(words);
  });

  it.each([['status'], ['logs'], ['kubectl', 'get', 'pods'], ['kubeconfig'], ['env'], ['bucket', 'ls']])(
    'a cluster that is not there is not found: %s',
    async (...args) => {
      const { exitCode, stdout, stderr } = await sandbox.run(args);
      expect({ exitCode, stdout }).toEqual({ exitCode: 4, stdout: '' });
      expect(stderr).toContain(`there is no cluster "${sandbox.name}"`);
    },
  );

  it('an image that cannot be built shows the line that failed and where the whole log is', async () => {
    const packageCopy = join(sandbox.home, 'package');
    await mkdir(packageCopy);
    for (const part of ['bin', 'dist', 'images', 'package.json', 'docs']) {
      await cp(join(ROOT, part), join(packageCopy, part), { recursive: true });
    }
    await symlink(join(ROOT, 'node_modules'), join(packageCopy, 'node_modules'));
    const dockerfile = join(packageCopy, 'images', 'dns', 'Dockerfile');
    await writeFile(dockerfile, 'ARG BUILDER\nFROM ${BUILDER}\nRUN echo before && no-such-program --version\n');
    const { exitCode, stderr } = await sandbox.run(['up'], { entry: join(packageCopy, 'bin', 'sandbar.js') });
    expect(exitCode).toBe(1);
    expect(stderr).toContain('echo before && no-such-program --version failed');
    expect(stderr).toContain('no-such-program: not found');
    const log = /(\/\S+\.log)/.exec(stderr)?.[1] ?? '';
    expect(await readFile(log, 'utf8')).toContain('no-such-program: not found');
  });
});

describe.skipIf(isDockerMissing)('a name that is taken', () => {
  const sandbox = createSandbox('taken');

  it('by a foreign container is an error, and that container is not touched', async () => {
    const { docker } = sandbox;
    await provideImage();
    const foreign = await docker.createContainer({ Image: TEST_IMAGE, name: sandbox.containerName('dns') });
    try {
      await foreign.start();
      const before = await foreign.inspect();
      const { exitCode, stderr } = await sandbox.run(['up']);
      expect(exitCode).toBe(3);
      expect(stderr).toContain(sandbox.containerName('dns'));
      expect(stderr).toContain('fix: ');
      expect((await foreign.inspect()).State).toEqual(before.State);
      await sandbox.must(['down', '--volumes', '--yes']);
      expect((await foreign.inspect()).State).toEqual(before.State);
    } finally {
      await foreign.remove({ force: true });
    }
  });
});

describe.skipIf(isDockerMissing)('two up at once for one cluster', () => {
  const sandbox = createSandbox('twice');

  it('take turns: the second waits, says for whom, and finds nothing to do', async () => {
    const outcomes = await Promise.all([sandbox.up(), sandbox.up()]);
    const [second, first] = outcomes.toSorted((a, b) => a.steps.length - b.steps.length);
    expect(first?.steps.map(({ id }) => id)).toContain('create container/agent');
    expect(second?.steps).toEqual([]);
    const notices = second?.events.filter(({ type }) => type === 'waiting').map((event) => event.text);
    expect(notices).toContainEqual(expect.stringMatching(/^waiting for another sandbar \(pid \d+\) that works on/));
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
  });

  it('a wait that is over too soon says what was waited for, and the next up goes on', async () => {
    await sandbox.docker.getContainer(sandbox.containerName('control-plane')).remove({ force: true });
    const { exitCode, stderr } = await sandbox.run(['up', '--timeout', '0.05']);
    expect(exitCode).toBe(5);
    expect(stderr).toMatch(/✖ (control-plane|agent|dns) was not ready after/);
    expect(stderr).toContain('fix: ');
    expect((await sandbox.up()).steps).toEqual([]);
  });
});

describe.skipIf(isDockerMissing)('a command that is interrupted', () => {
  const sandbox = createSandbox('killed');
  let proxy: EngineProxy | undefined;

  beforeAll(async () => {
    const { socketPath } = sandbox.docker.modem as unknown as { readonly socketPath: string };
    proxy = await openEngineProxy(join(sandbox.home, 'engine.sock'), socketPath);
  });

  afterAll(() => proxy?.close());

  /** Runs a command that gets a signal at the n-th change of the engine. */
  async function interrupted(
    args: readonly string[],
    { signal, moment, atChange }: { readonly signal: NodeJS.Signals } & Pick<Interruption, 'moment' | 'atChange'>,
  ): Promise<RunResult> {
    const { child, ended } = sandbox.start(args, { env: { DOCKER_HOST: proxy?.address } });
    proxy?.interrupt({ atChange, moment, act: () => child.kill(signal) });
    const result = await ended;
    proxy?.interrupt(undefined);
    return result;
  }

  /** Again and again, each time killed one change later than before, until a run comes to its end. */
  async function untilDone(
    args: readonly string[],
    how: { signal: NodeJS.Signals; moment: Interruption['moment'] },
  ): Promise<number> {
    for (let atChange = 1; atChange < 40; atChange += 1) {
      const { exitCode, stderr } = await interrupted(args, { ...how, atChange });
      if (exitCode === 0) return atChange;
      expect(exitCode, stderr).toBe(how.signal === 'SIGKILL' ? -1 : 130);
      if (how.signal === 'SIGINT') expect(stderr).toContain('interrupted');
    }
    throw new Error(`${args.join(' ')} never came to its end`);
  }

  it.each([
    { signal: 'SIGKILL', moment: 'before' },
    { signal: 'SIGKILL', moment: 'after' },
    { signal: 'SIGINT', moment: 'during' },
  ] as const)('by $signal $moment each change of the engine goes on from there when it is run again', async (how) => {
    expect(await untilDone(['up'], how)).toBeGreaterThan(3);
    expect((await sandbox.up()).steps).toEqual([]);
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    expect(await untilDone(['down', '--volumes', '--yes'], how)).toBeGreaterThan(2);
    expect(await everythingOf(sandbox)).toEqual([]);
  });

  it('while it waits for the node goes on from there when it is run again', async () => {
    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      const { exitCode } = await sandbox.run(['up', '-o', 'ndjson'], {
        onLine: (line, kill) => {
          if (line.includes('"step-started"') && line.includes('wait container/agent')) kill(signal);
        },
      });
      expect(exitCode).toBe(signal === 'SIGKILL' ? -1 : 130);
      await sandbox.docker.getContainer(sandbox.containerName('agent')).remove({ force: true });
    }
    // What is started beside the rest may not have had its turn before either.
    const aside = /^create (container\/(metrics|ports|registry)|attachment\/)/;
    const steps = (await sandbox.up()).steps.map(({ id }) => id);
    expect(steps.filter((id) => !aside.test(id))).toEqual(['create container/agent']);
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
  });
});

async function provideImage(): Promise<void> {
  const runtime = new DockerRuntime(environment);
  await provideTestImage(runtime);
  await runtime.close();
}

/** Names of everything that carries the cluster's label. */
async function everythingOf({ docker, name }: Sandbox): Promise<readonly string[]> {
  const filters = { label: [`dev.sandbar.cluster=${name}`] };
  const [containers, { Volumes: volumes }, networks] = await Promise.all([
    docker.listContainers({ all: true, filters }),
    docker.listVolumes({ filters }),
    docker.listNetworks({ filters }),
  ]);
  return [
    ...containers.flatMap(({ Names: names }) => names),
    ...volumes.map((volume) => volume.Name),
    ...networks.map((network) => network.Name),
  ];
}

/** Listens on 127.0.0.1, on a free port unless one is named; somebody who has that one already will do. */
async function listen(wanted = 0): Promise<{ readonly port: number; readonly close: () => Promise<void> }> {
  const server = createServer();
  const isTaken = await new Promise<boolean>((resolve) => {
    server.on('error', () => {
      resolve(true);
    });
    server.listen({ host: '127.0.0.1', port: wanted }, () => {
      resolve(false);
    });
  });
  if (isTaken) return { port: wanted, close: () => Promise.resolve() };
  const { port } = server.address() as { readonly port: number };
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
  };
}
