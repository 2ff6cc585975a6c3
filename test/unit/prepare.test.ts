import { spawnSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const PREPARE = new URL('../../bin/prepare.js', import.meta.url);
/** Writes down how it was called. */
const NPM = `require('node:fs').appendFileSync(process.env.CALLS, process.argv.slice(2, 3) + ' ')`;

describe('the preparation of a checkout', () => {
  let folder: string;
  let checkout: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sandbar-prepare-'));
    checkout = join(folder, 'checkout');
    await mkdir(join(checkout, 'bin'), { recursive: true });
    await mkdir(join(folder, 'packages'));
    await copyFile(PREPARE, join(checkout, 'bin', 'prepare.js'));
    await writeFile(join(checkout, 'package.json'), '{"type":"module"}');
    await writeFile(join(checkout, 'package-lock.json'), '{}');
    await writeFile(join(folder, 'npm.js'), NPM);
    await writeFile(join(folder, 'calls'), '');
  });

  afterEach(() => rm(folder, { recursive: true }));

  const prepare = async (): Promise<{ exitCode: number | null; stderr: string; calls: string }> => {
    const script = `import { prepare } from './bin/prepare.js'; prepare();`;
    const { status: exitCode, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: checkout,
      env: { ...process.env, npm_execpath: join(folder, 'npm.js'), CALLS: join(folder, 'calls') },
      encoding: 'utf8',
    });
    return { exitCode, stderr, calls: await readFile(join(folder, 'calls'), 'utf8') };
  };

  it('installs packages and compiles', async () => {
    expect(await prepare()).toMatchObject({ exitCode: 0, calls: 'ci run ' });
  });

  it('never has npm empty a folder that node_modules only leads to', async () => {
    await symlink(join(folder, 'packages'), join(checkout, 'node_modules'));
    const refused = await prepare();
    expect(refused).toMatchObject({ exitCode: 1, calls: '' });
    expect(refused.stderr).toContain('fix: remove the link');
    const installed = join(folder, 'packages', '.package-lock.json');
    await writeFile(installed, '{}');
    await utimes(installed, 1, 1);
    expect(await prepare()).toMatchObject({ exitCode: 0, calls: 'run ' });
  });
});
