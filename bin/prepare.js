/**
 * What a checkout needs before it can run: Node's version, the packages, the compiled sources. Plain Node without
 * packages, because it runs before they are there.
 */
import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const NEEDED_NODE = [20, 19];

/** Brings the checkout up to date, silently where it is, and ends the process where that fails. */
export function prepare() {
  checkNode();
  // An installed package has no lockfile: it came with its packages and compiled.
  if (modifiedAt('package-lock.json') === 0) return;
  // npm writes this file last, so a broken installation counts as none.
  if (modifiedAt('node_modules/.package-lock.json') < modifiedAt('package-lock.json')) {
    if (isLinked('node_modules')) takeLinkedPackages();
    else run('installing the npm packages', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  }
  const newest = Math.max(...['src', 'bin/bundle.js', 'package.json'].map(newestBelow));
  if (modifiedAt('dist/main.js') < newest) run('compiling', ['run', '--silent', 'build']);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  const [neededMajor, neededMinor] = NEEDED_NODE;
  if (major > neededMajor || (major === neededMajor && minor >= neededMinor)) return;
  console.error(`✖ Node ${process.versions.node} is too old: Sandbar needs ${NEEDED_NODE.join('.')} or newer`);
  console.error('  fix: install a newer one, for example from https://nodejs.org or with nvm install 22');
  process.exit(3);
}

/** npm empties the folder that it installs into, which here belongs to somebody else. */
function takeLinkedPackages() {
  if (modifiedAt('node_modules/.package-lock.json') > 0) {
    console.error('• node_modules is a symbolic link: its packages are taken as they are');
    return;
  }
  console.error('✖ node_modules is a symbolic link to where npm has installed nothing');
  console.error('  fix: remove the link, or run npm ci where it leads to');
  process.exit(1);
}

function isLinked(path) {
  return lstatSync(join(root, path), { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}

function run(what, args) {
  console.error(`• ${what}`);
  const startedAt = performance.now();
  // npm names its own script when it started us; else it is looked up.
  const npm = process.env.npm_execpath;
  const [file, ...rest] = npm?.endsWith('.js') ? [process.execPath, npm, ...args] : ['npm', ...args];
  const { status, error } = spawnSync(file, rest, {
    cwd: root,
    stdio: ['ignore', 2, 'inherit'],
    shell: process.platform === 'win32' && file === 'npm',
  });
  if (status !== 0) {
    console.error(`✖ npm ${args.join(' ')} failed${error === undefined ? '' : `: ${error.message}`}`);
    if (error?.code === 'ENOENT')
      console.error('  fix: install npm, which comes with Node (Debian: apt-get install npm)');
    process.exit(1);
  }
  console.error(`✔ ${what} ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
}

/** Time of the last change in milliseconds, 0 when there is no such file. */
function modifiedAt(path) {
  return statSync(join(root, path), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function newestBelow(path) {
  const own = modifiedAt(path);
  const stats = statSync(join(root, path), { throwIfNoEntry: false });
  if (stats?.isDirectory() !== true) return own;
  return Math.max(own, ...readdirSync(join(root, path)).map((name) => newestBelow(join(path, name))));
}
