#!/usr/bin/env node
/** `npm run conformance`: the quickstart's preparation, then test/conformance, bundled on the fly. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { runBundled } from './bundled.js';
import { prepare, root } from './prepare.js';

prepare();
const { status } = spawnSync(process.execPath, [join(root, 'bin', 'quickstart.js'), '--prepare'], {
  stdio: ['inherit', 2, 'inherit'],
});
if (status !== 0) process.exit(status ?? 1);
process.exitCode = await runBundled('conformance', process.argv.slice(2));
