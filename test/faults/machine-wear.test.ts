/** What happens to the machine behind a cluster's back: ports are taken, the disk is full, Docker is cleaned up. */
import { createServer, type Server } from 'node:net';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createSandbox, eventually } from '../e2e/support.ts';
import { connectS3 } from '../e2e/writers.ts';
import { Keeper } from './keeper.ts';
import { isOwnMachine, loadImages, run } from './machine.ts';

const DOCKER_ROOT = '/var/lib/docker';
const BALLAST = `${DOCKER_ROOT}/ballast`;

describe.skipIf(!isOwnMachine)('a cluster that is stopped', () => {
  const sandbox = createSandbox('stopped');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  it('gives way to programs that have taken its ports meanwhile, and says so', async () => {
    const before = await sandbox.ports();
    await sandbox.must(['stop']);
    const servers = await Promise.all(Object.values(before).map(occupy));
    try {
      const { events, ports } = await sandbox.up();
      const notices = events.filter(({ type }) => type === 'notice').map(({ text }) => text);
      for (const port of Object.values(before)) {
        expect(notices).toContainEqual(
          expect.stringMatching(new RegExp(`^port ${String(port)} is used by .*pid ${String(process.pid)}`)),
        );
        expect(Object.values(ports)).not.toContain(port);
      }
      await keeper.connect();
      await keeper.untilServed();
      await keeper.expectNothingLost();
    } finally {
      servers.forEach((server) => server.close());
    }
  });

  it('has a port that it was told to have taken: the error names who has it, and nothing is lost', async () => {
    await sandbox.must(['stop']);
    const { http } = await sandbox.ports();
    const port = Number.isNaN(http) ? 8080 : http;
    const server = await occupy(port);
    try {
      const { exitCode, stderr } = await sandbox.run(['up', '--http-port', String(port)]);
      expect(exitCode).toBe(3);
      expect(stderr).toContain(`✖ port ${String(port)} is used by `);
      expect(stderr).toContain('fix: stop it, or set ports.http in sandbar.yaml');
    } finally {
      server.close();
    }
    await sandbox.up();
    await keeper.connect();
    await keeper.untilServed();
    await keeper.expectNothingLost();
  });
});

describe.skipIf(!isOwnMachine)('a cluster on a full disk', () => {
  const sandbox = createSandbox('full');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  afterEach(() => run('rm', '-f', BALLAST));

  it('says why it cannot write, and goes on by itself when there is room again', async () => {
    const s3 = await connectS3(sandbox, { maxAttempts: 1 });
    const put = new PutObjectCommand({ Bucket: 'kept', Key: 'large', Body: 'x'.repeat(2_000_000) });
    await fillDisk();
    await expect(s3.send(put)).rejects.toThrow(/storage|space|drive/i);
    // Nothing has to be made: a full disk is no reason to fail.
    expect((await sandbox.up()).steps).toEqual([]);
    // Writes go on until the datastore itself has no room; what it has acknowledged stays.
    const acknowledged: string[] = [];
    await eventually(
      'the datastore is full',
      async () => {
        const name = `filling-${String(acknowledged.length)}`;
        const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { text: 'x'.repeat(900_000) } };
        const { exitCode } = await sandbox.kubectl(['create', '--request-timeout=5s', '-f', '-'], {
          stdin: JSON.stringify(object),
        });
        if (exitCode !== 0) return true;
        acknowledged.push(name);
        return undefined;
      },
      { timeoutMs: 300_000 },
    );
    await keeper.recovers('disk full, then freed', () => run('rm', BALLAST));
    const { items } = await sandbox.getObject('configmaps');
    const names = items.map(({ metadata }) => metadata.name);
    expect(acknowledged.filter((name) => !names.includes(name))).toEqual([]);
    s3.destroy();
  });

  it('cannot be started, which is said with its fix, and is there when there is room again', async () => {
    await sandbox.must(['stop']);
    await fillDisk();
    const { exitCode, stderr } = await sandbox.run(['start']);
    expect(exitCode, stderr).toBe(3);
    expect(stderr).toMatch(/✖ .*(no space|free)/);
    expect(stderr).toContain('fix: ');
    const free = (): Promise<string> => run('rm', BALLAST);
    await keeper.recovers('started on a full disk, then freed and started', free, () => sandbox.must(['start']));
  });

  it('refuses what would need room before it begins, with the way to get some', async () => {
    await fillDisk();
    await sandbox.docker.getContainer(sandbox.containerName('dns')).remove({ force: true });
    const { exitCode, stderr } = await sandbox.run(['up']);
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(/✖ .*(no space|free)/);
    expect(stderr).toContain('fix: ');
    await run('rm', BALLAST);
    await sandbox.up();
    await keeper.untilServed();
    await keeper.expectNothingLost();
  });

  /** To the last block, also of those that only root may take. */
  async function fillDisk(): Promise<void> {
    await run(
      'sh',
      '-c',
      `dd if=/dev/zero of=${BALLAST} bs=1M status=none; dd if=/dev/zero of=${BALLAST} bs=4k oflag=append conv=notrunc status=none; true`,
    );
    expect(await run('df', DOCKER_ROOT)).toMatch(/ 0 +100% /);
  }
});

describe.skipIf(!isOwnMachine)('a cluster that is stopped while Docker is pruned', () => {
  const sandbox = createSandbox('pruned');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  // All of them were pruned, too, and there is no registry on this machine.
  afterEach(loadImages);

  it('is back with all data after its containers and its images were pruned', async () => {
    await sandbox.must(['stop']);
    await run('docker', 'system', 'prune', '--all', '--force');
    // It goes on for the sake of other clusters.
    const left = await run('docker', 'ps', '--all', '--format', '{{.Names}}');
    expect(left.trim()).toBe(sandbox.registryName);
    const { exitCode, stderr } = await sandbox.run(['status']);
    expect(exitCode).toBe(4);
    expect(stderr).toContain(`cluster "${sandbox.name}" is down: only its data are there`);
    expect(stderr).toContain('fix: sandbar up');
    await loadImages();
    const { steps } = await sandbox.up();
    expect(steps.map(({ id }) => id)).toContain('create container/agent');
    expect(steps.map(({ id }) => id).filter((id) => id.includes('volume/'))).toEqual([]);
    await keeper.connect();
    await keeper.untilServed();
    await keeper.expectNothingLost();
  });

  it('is made anew after everything of it was pruned', async () => {
    await sandbox.must(['stop']);
    await sandbox.must(['registry', 'rm', '--yes']);
    await run('docker', 'system', 'prune', '--all', '--force', '--volumes');
    expect((await run('docker', 'volume', 'ls', '--quiet')).trim()).toBe('');
    expect((await sandbox.run(['status'])).exitCode).toBe(4);
    await loadImages();
    const { steps } = await sandbox.up();
    expect(steps.map(({ id }) => id)).toEqual(expect.arrayContaining(['create network', 'create volume/datastore']));
    // The kubeconfig of the lost cluster would not do for the new one.
    expect(await sandbox.mustKubectl(['get', 'namespaces'])).toContain('sandbar-system');
    expect((await sandbox.kubectl(['get', 'deployment', 'keeper'])).exitCode).toBe(1);
    expect((await sandbox.up()).steps).toEqual([]);
  });
});

/** Listens on a port of 127.0.0.1, as another program would. */
async function occupy(port: number): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject).listen({ host: '127.0.0.1', port }, resolve);
  });
  return server;
}
