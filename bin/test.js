#!/usr/bin/env node
/**
 * `npm test`: the quickstart's preparation, then every tier of tests. `npm test -- unit e2e` runs only these tiers;
 * what follows a further `--` goes to vitest. The tiers `faults` (`npm run faults`), `ecosystem` and `versions` take long, and run when
 * they are named.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { prepare, root } from './prepare.js';

const USUAL_TIERS = ['unit', 'contract', 'integration', 'e2e'];
const TIERS = [...USUAL_TIERS, 'ecosystem', 'faults', 'versions'];
/** Begins a command whose processes, mounts and network nobody else sees; all of it ends with the command. */
const OWN_MACHINE = ['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
const ARTIFACTS = join(root, '.sandbar', 'artifacts');

const { tiers, rest } = parseArguments(process.argv.slice(2));
const startedAt = performance.now();
prepare();
if (tiers.some((tier) => tier !== 'unit')) provideEngineAndImages();
const chromium = tiers.includes('e2e') ? provideChromium() : undefined;
if (tiers.includes('faults')) prepareOwnMachine();
mkdirSync(ARTIFACTS, { recursive: true });

// One tier after the other: what uses the engine has it for itself, and a later tier is worth nothing when an earlier
// one has already said why. All run all the same, so that one run shows everything that fails.
const results = tiers.map(runTier);
summarize(results);

function parseArguments(args) {
  const end = args.indexOf('--');
  const named = end === -1 ? args : args.slice(0, end);
  const unknown = named.filter((tier) => !TIERS.includes(tier));
  if (unknown.length > 0) {
    console.error(`✖ there are no tests "${unknown.join(' ')}": there are ${TIERS.join(', ')}`);
    process.exit(2);
  }
  return {
    tiers: named.length === 0 ? USUAL_TIERS : TIERS.filter((tier) => named.includes(tier)),
    rest: end === -1 ? [] : args.slice(end + 1),
  };
}

function provideEngineAndImages() {
  // The images of the conformance suite come after all others.
  const script = tiers.includes('e2e') ? 'conformance.js' : 'quickstart.js';
  const { status } = spawnSync(process.execPath, [join(root, 'bin', script), '--prepare'], {
    stdio: ['inherit', 2, 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** A browser for the example's page. */
function provideChromium() {
  const found = findChromium();
  if (found !== undefined) return found;
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    console.error('• installing chromium');
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const stdio = ['ignore', 'ignore', 'inherit'];
    spawnSync('apt-get', ['update', '--quiet'], { env, stdio });
    spawnSync('apt-get', ['install', '--yes', '--no-install-recommends', 'chromium'], { env, stdio });
  }
  const installed = findChromium();
  if (installed !== undefined) return installed;
  console.error('✖ no Chromium found: install it, or name it with CHROMIUM=/path/to/it');
  return process.exit(3);
}

function findChromium() {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  const folders = (process.env.PATH ?? '').split(delimiter);
  const candidates = folders.flatMap((folder) => names.map((name) => join(folder, name)));
  return [
    process.env.CHROMIUM ?? '',
    ...candidates,
    '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  ].find((path) => path !== '' && existsSync(path));
}

/**
 * Faults are made on a machine of their own (test/faults/machine.ts): namespaces with an engine of their own, which is
 * handed the images that are here.
 */
function prepareOwnMachine() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) {
    console.error('✖ the tests of faults open namespaces: they need Linux and root');
    process.exit(3);
  }
  const folder = join(root, '.sandbar', 'faults');
  mkdirSync(folder, { recursive: true });
  const sandbar = join(root, 'bin', 'sandbar.js');
  const images = JSON.parse(spawnSync(process.execPath, [sandbar, 'image', 'ls', '-o', 'json']).stdout);
  const refs = [...images.map(({ ref }) => ref), 'sandbar-example/gallery-web:latest'];
  const file = join(folder, 'images.tar');
  const { status } = spawnSync('docker', ['save', '--output', file, ...refs], { stdio: ['ignore', 2, 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
}

function runTier(tier) {
  const report = join(ARTIFACTS, `tests-${tier}.json`);
  rmSync(report, { force: true });
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const [file, ...args] = [...(tier === 'faults' ? OWN_MACHINE : []), process.execPath];
  const { status } = spawnSync(
    file,
    [
      ...args,
      ...[vitest, 'run', '--config', join(root, 'test', 'vitest.config.ts'), '--project', tier, '--passWithNoTests'],
      ...['--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
      ...rest,
    ],
    {
      cwd: root,
      stdio: 'inherit',
      env: {
        ...process.env,
        SANDBAR_REQUIRE_DOCKER: '1',
        ...(chromium && { CHROMIUM: chromium }),
        ...(tier === 'faults' && { SANDBAR_OWN_MACHINE: '1', DOCKER_HOST: 'unix:///run/docker.sock' }),
      },
    },
  );
  return { tier, isPassed: status === 0, ...readCounts(report) };
}

function readCounts(report) {
  if (!existsSync(report)) return { passed: 0, failed: 0, skipped: 0 };
  const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(readFileSync(report, 'utf8'));
  return { passed: numPassedTests, failed: numFailedTests, skipped: numPendingTests };
}

function summarize(all) {
  const sum = (key) => all.reduce((total, result) => total + result[key], 0);
  const perTier = all.map(({ tier, passed, failed }) => `${tier} ${passed}${failed > 0 ? ` (${failed} failed)` : ''}`);
  const broken = all.filter(({ isPassed }) => !isPassed).map(({ tier }) => tier);
  const minutes = ((performance.now() - startedAt) / 60_000).toFixed(1);
  const skipped = sum('skipped') === 0 ? '' : `, ${sum('skipped')} skipped`;
  const counts = `${sum('passed')} tests passed, ${sum('failed')} failed${skipped}: ${perTier.join(', ')}; ${minutes} min`;
  console.log(broken.length === 0 ? `\n✔ ${counts}` : `\n✖ ${counts}\n  failing: ${broken.join(', ')}`);
  process.exitCode = broken.length === 0 ? 0 : 1;
}
