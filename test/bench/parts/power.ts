/** A cluster that is stopped, frozen, kept as a snapshot and taken back, each time until it is of use again. */
import type { Measurements } from '../measures.ts';
import { httpsStatus, type HostPorts, type Subject } from '../subject.ts';
import { verify } from '../verify.ts';
import { claimOf, deploymentOf, loadWorkloadImage, provideWorkloadImage } from '../workload.ts';

const SNAPSHOT = 'bench';
const VOLUME_MIB = 1024;

export async function preparePower(subject: Subject): Promise<void> {
  await provideWorkloadImage(subject);
  await subject.up();
  await subject.provideKubectl();
}

export async function measurePower(
  subject: Subject,
  measurements: Measurements,
  options: { readonly restartEngine: (() => Promise<void>) | undefined },
): Promise<void> {
  const { ports } = await subject.up();
  await loadWorkloadImage(subject);
  await use(subject);

  measurements.record('stop', (await subject.sandbar('stop')).seconds);
  measurements.record(
    'start',
    await secondsUntil(
      () => subject.sandbar('start'),
      () => verify(subject, ports),
    ),
  );
  measurements.record('pause', (await subject.sandbar('pause')).seconds);
  measurements.record(
    'resume',
    await secondsUntil(
      () => subject.sandbar('resume'),
      () => untilReady(subject, ports),
    ),
  );

  await fillClaim(subject);
  measurements.record('snapshot-create', (await subject.sandbar('snapshot', 'create', SNAPSHOT)).seconds);
  const restore = (): Promise<unknown> => subject.sandbar('snapshot', 'restore', SNAPSHOT, '--yes');
  measurements.record('snapshot-restore', await secondsUntil(restore, () => untilReady(subject, ports)));
  await subject.sandbar('snapshot', 'rm', SNAPSHOT, '--yes');

  const { restartEngine } = options;
  if (restartEngine !== undefined) {
    measurements.record('engine-restart', await secondsUntil(restartEngine, () => verify(subject, ports)));
  }
  await subject.sandbar('down', '--volumes', '--yes');
}

async function secondsUntil(deed: () => Promise<unknown>, isOfUse: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await deed();
  await isOfUse();
  return (performance.now() - startedAt) / 1000;
}

async function untilReady(subject: Subject, ports: HostPorts): Promise<void> {
  await subject.until('/readyz', async () => {
    const status = await httpsStatus(`https://127.0.0.1:${String(ports.api)}/readyz`);
    return status === 200 ? true : undefined;
  });
}

/** Two pods, one of them with a claim. */
async function use(subject: Subject): Promise<void> {
  const volumes = [{ name: 'data', persistentVolumeClaim: { claimName: 'bench' } }];
  const deployment = deploymentOf({ name: 'bench', replicas: 2, podSpec: { volumes } });
  const items = [claimOf({ name: 'bench' }), deployment];
  await subject.kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  await subject.kubectl(['rollout', 'status', 'deployment/bench', '--timeout=60s']);
}

/** Content that neither compression nor holes make small. */
async function fillClaim(subject: Subject): Promise<void> {
  const { stdout } = await subject.kubectl(['get', 'pv', '-o', 'jsonpath={.items[0].spec.hostPath.path}']);
  const directory = stdout === '' ? '/var/lib/sandbar/volumes' : stdout;
  const script = `dd if=/dev/urandom of="$0/bench" bs=1M count=${String(VOLUME_MIB)} status=none && sync`;
  if ((await subject.exec('agent', ['sh', '-c', script, directory])) === undefined) {
    throw new Error(`could not write ${String(VOLUME_MIB)} MiB to ${directory}`);
  }
}
