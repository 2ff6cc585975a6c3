#!/usr/bin/env node
/** `npm run bench`: the quickstart's preparation, then test/bench, bundled on the fly. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { runBundled } from './bundled.js';
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

process.exitCode = await runBundled('bench', args);
