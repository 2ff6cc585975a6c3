/** Programs of the tests that are TypeScript and no tests: bundled on the fly, and called. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from './prepare.js';

/** Runs `main(root, args)` of `test/NAME/main.ts`, and returns its exit code. */
export async function runBundled(name, args) {
  const { build } = await import('esbuild');
  const outfile = join(root, '.sandbar', name, 'main.js');
  await build({
    entryPoints: [join(root, 'test', name, 'main.ts')],
    outfile,
    bundle: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    logLevel: 'warning',
  });
  const { main } = await import(pathToFileURL(outfile).href);
  return main(root, args);
}
