/** Programs that are started and left to themselves. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { startDetached } from '../../src/adapters/program.ts';

const SCRIPT = `
import { writeFileSync } from 'node:fs';
console.log('says', ...process.argv.slice(3));
console.error(process.cwd());
writeFileSync(process.argv[2], String(process.pid));
`;

it('starts a process of its own group that holds no folder, with its words in a file', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'sandbar-detached-'));
  try {
    const [script, done, log] = ['script.mjs', 'done', 'logs/relay.log'].map((name) => path.join(folder, name));
    await writeFile(script!, SCRIPT);
    await startDetached(script!, [done!, 'two words', '*'], log!);
    const pidOf = (): Promise<string> => readFile(done!, 'utf8').catch(() => '');
    await expect.poll(pidOf, { timeout: 5_000 }).toMatch(/^\d+$/);
    expect(await pidOf()).not.toBe(String(process.pid));
    expect(await readFile(log!, 'utf8')).toBe(`says two words *\n${path.parse(folder).root}\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
