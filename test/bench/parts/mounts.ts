/** Live mounts: how long an attach takes, how far an edit on the host is from the process in the pod, what it costs. */
import { spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { git, makeRepository } from '../../fixtures/repository.ts';
import { COUNT_SCRIPT, WATCH_SCRIPT } from '../../fixtures/watch-scripts.ts';
import { medianOf, percentileOf, type Measurements } from '../measures.ts';
import type { HostPorts, Subject } from '../subject.ts';
import { sampleAll } from './rest.ts';

/** The gallery's: it holds Node. */
const IMAGE = 'sandbar-example/gallery-web:latest';
const EDITS = 50;
const BETWEEN_EDITS_MS = 20;
const SETTLING_MS = 10_000;
const WATCHING_MS = 60_000;

/** Serves a file as it is at each request, and says when it first could be read, by the kernel's clock. */
const SERVER = `
const { readFileSync } = require('fs');
const { createServer } = require('http');
const nowMs = () => Number(process.hrtime.bigint()) / 1e6;
const first = (path) => {
  try { readFileSync(path); } catch { return setTimeout(first, 1, path); }
  console.log(JSON.stringify({ path, atMs: nowMs() }));
};
first('/src/page.html');
first('/src/nested/page.html');
createServer((request, response) => {
  try { response.end(readFileSync('/src/page.html')); } catch { response.writeHead(404).end(); }
}).listen(8080);
process.on('SIGTERM', () => process.exit());
`;

const OBJECTS = JSON.stringify({
  apiVersion: 'v1',
  kind: 'List',
  items: [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'mounted' },
      spec: {
        selector: { matchLabels: { app: 'mounted' } },
        template: {
          metadata: { labels: { app: 'mounted' } },
          spec: {
            terminationGracePeriodSeconds: 0,
            containers: [
              { name: 'main', image: IMAGE, imagePullPolicy: 'IfNotPresent', command: ['node', '-e', SERVER] },
            ],
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'mounted' },
      spec: { selector: { app: 'mounted' }, ports: [{ port: 80, targetPort: 8080 }] },
    },
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: { name: 'mounted' },
      spec: {
        rules: [
          {
            host: 'mounted.localhost',
            http: {
              paths: [
                { path: '/', pathType: 'Prefix', backend: { service: { name: 'mounted', port: { number: 80 } } } },
              ],
            },
          },
        ],
      },
    },
  ],
});

export async function prepareMounts(subject: Subject): Promise<void> {
  await subject.sandbar('quickstart', '--prepare');
  await subject.up();
  await subject.provideKubectl();
  await subject.sandbar('image', 'load', IMAGE);
}

export async function measureMounts(subject: Subject, measurements: Measurements): Promise<void> {
  const { ports } = await subject.up();
  const folder = join(subject.directory, 'mounted');
  await mkdir(join(folder, 'app', 'nested'), { recursive: true });
  await mkdir(join(folder, 'nested'));
  for (const file of ['app/page.html', 'nested/page.html']) await writeFile(join(folder, file), 'first');
  try {
    await subject.kubectl(['apply', '-f', '-'], OBJECTS);
    await subject.kubectl(['rollout', 'status', 'deployment/mounted', '--timeout=60s']);
    await measureAttach(subject, folder, measurements);
    const pod = await podName(subject);
    await measureEvents(subject, { folder: join(folder, 'app'), pod }, measurements);
    await measureServing(subject, { file: join(folder, 'app', 'page.html'), ports }, measurements);
    await measureCheckout(subject, { folder, pod }, measurements);
    await measureRest(subject, measurements);
  } finally {
    await subject.sandbar('unmount', '--all').catch(() => undefined);
    await subject.kubectl(['delete', '-f', '-', '--wait=true'], OBJECTS);
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureAttach(subject: Subject, folder: string, measurements: Measurements): Promise<void> {
  const attach = async (measure: string, source: string, target: string): Promise<void> => {
    const startedMs = nowMs();
    const { seconds } = await subject.sandbar('mount', join(folder, source), `deployment/mounted:${target}`);
    measurements.record(`${measure}-returns`, seconds);
    const firstReadMs = await subject.until(`a read of ${target}`, async () => {
      const { stdout } = await subject.kubectl(['logs', await podName(subject)]);
      const reads = stdout.trim().split('\n').filter(Boolean);
      return reads
        .map((line) => JSON.parse(line) as { path: string; atMs: number })
        .find(({ path }) => path === `${target}/page.html`)?.atMs;
    });
    measurements.record(measure, (firstReadMs - startedMs) / 1000);
  };
  await attach('mount-rolled', 'app', '/src');
  // The parent's folder has no such file, so that nobody reads it too early.
  await attach('mount-nested', 'nested', '/src/nested');
}

async function measureEvents(
  subject: Subject,
  { folder, pod }: { readonly folder: string; readonly pod: string },
  measurements: Measurements,
): Promise<void> {
  const seen = new Map<string, number>();
  let isWatching = false;
  const watching = subject.startInPod(pod, ['node', '-e', WATCH_SCRIPT, '/src'], (line) => {
    if (line === 'watching') isWatching = true;
    else {
      const { name, atMs } = JSON.parse(line) as { name: string; atMs: number };
      if (!seen.has(name)) seen.set(name, atMs);
    }
  });
  await subject.until('a watch in the pod', () => Promise.resolve(isWatching || undefined));
  const delays: number[] = [];
  for (let edit = 0; edit < EDITS; edit += 1) {
    const name = `edit-${String(edit)}.txt`;
    const editedMs = nowMs();
    await writeFile(join(folder, name), name);
    const seenMs = await subject.until(`an event of ${name}`, () => Promise.resolve(seen.get(name)));
    delays.push(seenMs - editedMs);
    await subject.pause(BETWEEN_EDITS_MS);
  }
  watching.stop();
  measurements.record('mount-event', medianOf(delays));
  measurements.record('mount-event-p95', percentileOf(delays, 95));
}

async function measureServing(
  subject: Subject,
  { file, ports }: { readonly file: string; readonly ports: HostPorts },
  measurements: Measurements,
): Promise<void> {
  const agent = new Agent({ keepAlive: true });
  const fetchPage = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const headers = { host: 'mounted.localhost' };
      get({ host: '127.0.0.1', port: ports.http, path: '/', agent, headers }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => (body += text));
        response.on('end', () => resolve(body));
      }).on('error', reject);
    });
  await subject.until('the page', async () => ((await fetchPage()) === 'first' ? true : undefined));
  const delays: number[] = [];
  for (let edit = 0; edit < EDITS; edit += 1) {
    const text = `edit ${String(edit)}`;
    const editedMs = nowMs();
    await writeFile(file, text);
    while ((await fetchPage()) !== text);
    delays.push(nowMs() - editedMs);
    await subject.pause(BETWEEN_EDITS_MS);
  }
  agent.destroy();
  measurements.record('mount-served', medianOf(delays));
  measurements.record('mount-served-p95', percentileOf(delays, 95));
}

/**
 * Checkouts of one tree, followed by the same program on the host and in a pod, in turn. Two trees would not do: after
 * many files were deleted, ext4 takes several times as long to make new ones in some places as in others.
 */
async function measureCheckout(
  subject: Subject,
  { folder, pod }: { readonly folder: string; readonly pod: string },
  measurements: Measurements,
): Promise<void> {
  const follow = async (
    branch: string,
    start: (onLine: (line: string) => void) => { readonly stop: () => void },
  ): Promise<number> => {
    await rm(join(directory, '.done'), { force: true });
    let isWatching = false;
    let summary: { readonly names: number; readonly atMs: number } | undefined;
    const following = start((line) => {
      if (line === 'watching') isWatching = true;
      else summary = JSON.parse(line) as typeof summary;
    });
    await subject.until('a watch', () => Promise.resolve(isWatching || undefined));
    const startedMs = nowMs();
    await git(directory, 'checkout', '--quiet', branch);
    await writeFile(join(directory, '.done'), '');
    const { names, atMs } = await subject.until('all events', () => Promise.resolve(summary));
    following.stop();
    if (names !== 10_000) throw new Error(`events of ${String(names)} files instead of 10,000`);
    return (atMs - startedMs) / 1000;
  };
  const directory = join(folder, 'app', 'repository');
  await makeRepository(directory);
  const onHost = (onLine: (line: string) => void): { readonly stop: () => void } => {
    const child = spawn(process.execPath, ['-e', COUNT_SCRIPT, directory], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop() ?? '';
      lines.forEach(onLine);
    });
    return { stop: () => child.kill() };
  };
  const inPod = (onLine: (line: string) => void): { readonly stop: () => void } =>
    subject.startInPod(pod, ['node', '-e', COUNT_SCRIPT, '/src/repository'], onLine);
  for (let round = 0; round < 4; round += 1) {
    measurements.record('checkout-host', await follow('second', onHost));
    measurements.record('checkout-pod', await follow('first', inPod));
  }
  await rm(directory, { recursive: true });
}

async function measureRest(subject: Subject, measurements: Measurements): Promise<void> {
  await subject.pause(SETTLING_MS);
  const before = await sampleMount(subject);
  await subject.pause(WATCHING_MS);
  const after = await sampleMount(subject);
  measurements.record('mount-memory', after.memoryMiB);
  measurements.record('mount-cpu', ((after.cpuNs - before.cpuNs) / 1e6 / (after.atMs - before.atMs)) * 100);
}

async function sampleMount(subject: Subject): Promise<Awaited<ReturnType<typeof sampleAll>>[number]> {
  const sample = (await sampleAll(subject)).find(({ component }) => component === 'mounts');
  if (sample === undefined) throw new Error('there is no container of a mount');
  return sample;
}

async function podName(subject: Subject): Promise<string> {
  return subject.until('the pod', async () => {
    const { stdout } = await subject.kubectl(['get', 'pods', '-l', 'app=mounted', '-o', 'json']);
    const { items } = JSON.parse(stdout) as { items: { metadata: { name: string; deletionTimestamp?: string } }[] };
    const [pod, ...others] = items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    return others.length === 0 ? pod?.metadata.name : undefined;
  });
}

/** The kernel's clock, which is the same in a pod. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
