import { spawnSync } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const test = (fullName: string, status: string, ...failureMessages: readonly string[]): object => ({
  fullName,
  status,
  failureMessages,
});

describe('.ci/run', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sandbar-ci-'));
    for (const path of ['.ci/run', 'bin/failures.js']) await cp(join(ROOT, path), join(folder, path));
    await writeFile(join(folder, 'package.json'), '{"type":"module"}');
    for (const path of ['.sandbar/artifacts', 'programs', 'state/sandbar/logs']) {
      await mkdir(join(folder, path), { recursive: true });
    }
    await program('docker', 'exit 1');
  });

  afterEach(() => rm(folder, { recursive: true }));

  const program = async (name: string, script: string): Promise<void> => {
    const path = join(folder, 'programs', name);
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
  };
  const run = (): { readonly status: number | null; readonly stderr: string } =>
    spawnSync(join(folder, '.ci', 'run'), {
      env: {
        ...process.env,
        PATH: [join(folder, 'programs'), process.env['PATH']].join(delimiter),
        XDG_STATE_HOME: join(folder, 'state'),
      },
      encoding: 'utf8',
    });

  it('ends with the tests that failed, after logs of this run alone', async () => {
    const files = [
      {
        name: join(folder, 'test/e2e/one.test.ts'),
        status: 'failed',
        message: '',
        assertionResults: [
          test('a cluster answers', 'failed', 'AssertionError: expected 1\nto be 2\n    at one.test.ts:3'),
          test('a cluster stays', 'passed'),
        ],
      },
      { name: join(folder, 'test/e2e/two.test.ts'), status: 'passed', message: '', assertionResults: [] },
      {
        name: join(folder, 'test/e2e/three.test.ts'),
        status: 'failed',
        message: 'no image',
        assertionResults: [test('never', 'skipped')],
      },
    ];
    const report = { testResults: files };
    await writeFile(join(folder, 'report'), JSON.stringify(report));
    await program(
      'npm',
      'echo new >state/sandbar/logs/new.log; cp report .sandbar/artifacts/tests-e2e.json; echo all done; exit 3',
    );
    for (const old of ['.sandbar/artifacts/tests-faults.json', 'state/sandbar/logs/old.log']) {
      await writeFile(join(folder, old), 'of an earlier run');
      await utimes(join(folder, old), 1, 1);
    }
    const { status, stderr } = run();
    expect(status).toBe(3);
    expect(stderr).toContain('new.log\nnew\n');
    expect(stderr).not.toContain('of an earlier run');
    expect(stderr.split('== failed with exit code 3\n')[1]?.split('\n')).toEqual([
      '✖ test/e2e/one.test.ts > a cluster answers',
      '  AssertionError: expected 1',
      '  to be 2',
      '✖ test/e2e/three.test.ts',
      '  no image',
      '  1 of its tests were skipped',
      '',
    ]);
  });

  it('has nothing to explain where all is well', async () => {
    await program('npm', 'exit 0');
    expect(run()).toMatchObject({ status: 0, stderr: '' });
  });
});
