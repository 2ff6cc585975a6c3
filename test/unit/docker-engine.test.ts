import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectEngine, isOlder, translateEngineError } from '../../src/adapters/docker-engine.ts';
import { findEngineEndpoints, type EngineEnvironment } from '../../src/adapters/docker-endpoint.ts';

let home: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'sandbar-unit-'));
});

afterEach(async () => {
  await rm(home, { recursive: true });
});

const environment = (env: EngineEnvironment['env'] = {}): EngineEnvironment => ({
  platform: 'linux',
  env,
  homeDirectory: home,
});

async function writeHomeFile(path: string, content: unknown): Promise<void> {
  await mkdir(dirname(join(home, path)), { recursive: true });
  await writeFile(join(home, path), typeof content === 'string' ? content : JSON.stringify(content));
}

async function writeContext(name: string, endpoint: object): Promise<void> {
  const folder = createHash('sha256').update(name).digest('hex');
  await writeHomeFile(`.docker/contexts/meta/${folder}/meta.json`, { Name: name, Endpoints: { docker: endpoint } });
}

describe('findEngineEndpoints', () => {
  it('tries the system engine first, then those of the home directory', async () => {
    const paths = (await findEngineEndpoints(environment({ XDG_RUNTIME_DIR: '/run/user/7' }))).map((endpoint) =>
      endpoint.kind === 'socket' ? endpoint.path : '',
    );
    expect(paths.slice(0, 3)).toEqual([
      '/var/run/docker.sock',
      '/run/user/7/docker.sock',
      `${home}/.docker/run/docker.sock`,
    ]);
    expect(paths).toContain(`${home}/.colima/default/docker.sock`);
  });

  it('takes DOCKER_HOST before a context', async () => {
    await writeHomeFile('.docker/config.json', { currentContext: 'other' });
    const endpoints = await findEngineEndpoints(environment({ DOCKER_HOST: 'unix:///tmp/engine.sock' }));
    expect(endpoints).toEqual([{ kind: 'socket', path: '/tmp/engine.sock' }]);
  });

  it('takes the current context, or the one that DOCKER_CONTEXT names', async () => {
    await writeHomeFile('.docker/config.json', { currentContext: 'first' });
    await writeContext('first', { Host: 'unix:///first.sock' });
    await writeContext('second', { Host: 'unix:///second.sock' });
    expect(await findEngineEndpoints(environment())).toEqual([{ kind: 'socket', path: '/first.sock' }]);
    expect(await findEngineEndpoints(environment({ DOCKER_CONTEXT: 'second' }))).toEqual([
      { kind: 'socket', path: '/second.sock' },
    ]);
    expect(await findEngineEndpoints(environment({ DOCKER_CONTEXT: 'default' }))).toHaveLength(7);
  });

  it('reads the certificates of an engine behind TLS', async () => {
    for (const name of ['ca', 'cert', 'key']) await writeHomeFile(`certs/${name}.pem`, name);
    const env = { DOCKER_HOST: 'tcp://127.0.0.1:2376', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: join(home, 'certs') };
    const tls = { ca: 'ca', cert: 'cert', key: 'key', isUnverified: false };
    expect(await findEngineEndpoints(environment(env))).toEqual([{ kind: 'tcp', host: '127.0.0.1', port: 2376, tls }]);
  });

  it.each(['ssh://ada@far.example', 'tcp://10.1.2.3:2375', 'tcp://docker:2376'])(
    'refuses an engine on another machine: %s',
    async (address) => {
      const finding = findEngineEndpoints(environment({ DOCKER_HOST: address }));
      await expect(finding).rejects.toMatchObject({ code: 'DOCKER_REMOTE' });
    },
  );

  it('says that a context is not there', async () => {
    const finding = findEngineEndpoints(environment({ DOCKER_CONTEXT: 'none' }));
    await expect(finding).rejects.toMatchObject({
      code: 'DOCKER_MISSING',
      message: expect.stringContaining('none') as string,
    });
  });
});

describe('connectEngine', () => {
  const connect = (path: string) => connectEngine(environment({ DOCKER_HOST: `unix://${path}` }));

  it('says that no engine answers', async () => {
    await expect(connect(join(home, 'none.sock'))).rejects.toMatchObject({
      code: 'DOCKER_MISSING',
      hint: expect.stringContaining('docker.io') as string,
    });
  });

  it('refuses an engine that is too old', async () => {
    const path = join(home, 'old.sock');
    const server = createServer((_, response) => response.setHeader('Api-Version', '1.40').end('OK')).listen(path);
    await expect(connect(path)).rejects.toMatchObject({ code: 'DOCKER_TOO_OLD' });
    server.close();
  });

  it('refuses what is no engine', async () => {
    const path = join(home, 'web.sock');
    const server = createServer((_, response) => response.end('hello')).listen(path);
    await expect(connect(path)).rejects.toMatchObject({ code: 'DOCKER_FAILED' });
    server.close();
  });
});

it('compares API versions by number', () => {
  expect(isOlder('1.9', '1.41')).toBe(true);
  expect(isOlder('1.41', '1.41')).toBe(false);
  expect(isOlder('2.0', '1.41')).toBe(false);
});

describe('translateEngineError', () => {
  const refusal = (statusCode: number, message: string): Error =>
    Object.assign(new Error(`(HTTP code ${String(statusCode)}) unexpected - ${message}`), {
      statusCode,
      json: { message },
    });

  it('names the folder that is missing, and the command that makes it', () => {
    const message = 'invalid mount config for type "bind": bind source path does not exist: /home/ada/my app';
    expect(translateEngineError(refusal(400, message), 'create container x')).toMatchObject({
      code: 'NOT_FOUND',
      message: 'the engine finds no /home/ada/my app to mount: could not create container x',
      hint: expect.stringContaining("mkdir -p '/home/ada/my app'") as string,
    });
  });

  it.each([
    [500, 'Bind for 127.0.0.1:8080 failed: port is already allocated', 'PORT_IN_USE', '8080'],
    [500, 'listen tcp4 127.0.0.1:443: bind: address already in use', 'PORT_IN_USE', '443'],
    [
      500,
      'Ports are not available: exposing port TCP 127.0.0.1:80 -> 127.0.0.1:0: listen tcp 127.0.0.1:80: bind: address already in use',
      'PORT_IN_USE',
      '80',
    ],
    [500, 'cannot expose privileged port 80, you can add it', 'HOST_LIMIT', '80'],
    [403, 'Pool overlaps with other one on this address space', 'SUBNET_IN_USE', 'overlaps'],
    [500, 'write /var/lib/docker/tmp/x: no space left on device', 'DISK_FULL', 'no space'],
    [404, 'No such image: sandbar/dns:1', 'IMAGE_UNAVAILABLE', 'sandbar/dns:1'],
    [404, 'No such container: x', 'NOT_FOUND', 'x'],
    [409, 'Container 12ab is not running', 'CLUSTER_NOT_RUNNING', 'not running'],
    [409, 'volume is in use', 'CONFLICT', 'in use'],
    [500, 'something else', 'DOCKER_FAILED', 'something else'],
  ])('%i %s → %s', (status, message, code, mentioned) => {
    const error = translateEngineError(refusal(status, message), 'start container x');
    expect(error.code).toBe(code);
    expect(error.message).toContain(mentioned);
    expect(error.message).toContain('start container x');
  });
});
