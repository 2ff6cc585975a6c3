#!/usr/bin/env node
/** `npm run bench`: the quickstart's preparation, then test/bench, bundled on the fly. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { prepare, root } from './prepare.js';

const args = process.argv.slice(2);
prepare();
// Another package brings its own images.
if (!args.some((arg) => arg.startsWith('--package'))) {
  const { status } = spawnSync(process.execPath, [join(root, 'bin', 'quickstart.js'), '--prepare'], {
    stdio: ['inherit', 2, 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
}

const { build } = await import('esbuild');
const outfile = join(root, '.sandbar', 'bench', 'main.js');
await build({
  entryPoints: [join(root, 'test', 'bench', 'main.ts')],
  outfile,
  bundle: true,
  packages: 'external',
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  logLevel: 'warning',
});
const { main } = await import(pathToFileURL(outfile).href);
process.exitCode = await main(root, args);
