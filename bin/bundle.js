/**
 * Bundles the command line into `dist/`: a small entry, and a chunk for each thing that only some commands need. Node
 * reads a dozen files instead of a thousand, which is most of the time of a short command.
 */
import { readdir, rm, stat } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Parts of the Docker client that nothing here reaches: engines behind ssh are refused, and BuildKit is driven without
 * a session of its own. They bring native add-ons and gRPC, and cost 60 ms of every command.
 */
const LEFT_OUT = [/docker-modem[\\/]lib[\\/]ssh\.js$/, /dockerode[\\/]lib[\\/](?:session|buildkit)\.js$/];

const leaveOut = {
  name: 'leave-out',
  setup(bundler) {
    for (const filter of LEFT_OUT) {
      bundler.onLoad({ filter }, ({ path }) => ({
        contents: `module.exports = () => { throw new Error(${JSON.stringify(`left out of the bundle: ${path.replace(root, '')}`)}); };`,
      }));
    }
  },
};

const result = await build({
  absWorkingDir: root,
  entryPoints: ['src/main.ts'],
  outdir: 'dist',
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  // Of a CommonJS module that is imported when needed, only the default export is there.
  mainFields: ['module', 'main'],
  // Names stay, so that stack traces can be read.
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'linked',
  // CommonJS packages ask for Node's own modules with `require`, which ES modules do not have.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module';const require = __createRequire(import.meta.url);",
  },
  plugins: [leaveOut],
  logLevel: 'warning',
  metafile: true,
});

// A command that runs just now may still load its chunks, so that those of earlier builds are kept for a while.
const KEPT_MS = 24 * 60 * 60 * 1000;
const outputs = new Set(Object.keys(result.metafile.outputs).map((path) => join(root, path)));
const files = await readdir(join(root, 'dist'), { recursive: true, withFileTypes: true });
for (const path of files.filter((file) => file.isFile()).map((file) => join(file.parentPath, file.name))) {
  if (outputs.has(path)) continue;
  const { mtimeMs } = await stat(path);
  if (!path.includes(`${sep}chunks${sep}`) || Date.now() - mtimeMs > KEPT_MS) await rm(path);
}
