/** How soon pods run: one alone, and a hundred at once. */
import { medianOf, type Measurements } from '../measures.ts';
import type { Subject } from '../subject.ts';
import { deploymentOf, loadWorkloadImage, provideWorkloadImage, WORKLOAD_IMAGE } from '../workload.ts';

const SINGLE_PODS = 5;
const HUNDRED = 100;

export async function preparePods(subject: Subject): Promise<void> {
  await provideWorkloadImage(subject);
  await subject.sandbar('down', '--volumes', '--yes');
  await subject.up();
  await subject.provideKubectl();
  await loadWorkloadImage(subject);
}

export async function measurePods(subject: Subject, measurements: Measurements): Promise<void> {
  const singles: number[] = [];
  for (let number = 0; number < SINGLE_PODS; number += 1)
    singles.push(await runPod(subject, `single-${String(number)}`));
  measurements.record('pod-start', medianOf(singles));

  const running = await listProcesses(subject);
  const name = 'hundred';
  const startedAt = performance.now();
  await subject.kubectl(['apply', '-f', '-'], JSON.stringify(deploymentOf({ name, replicas: HUNDRED })));
  await subject.kubectl(['rollout', 'status', `deployment/${name}`, '--timeout=300s']);
  measurements.record('pods-100', (performance.now() - startedAt) / 1000);
  await subject.kubectl(['delete', 'deployment', name]);
  await subject.until('all pods gone', async () => {
    const { stdout } = await subject.kubectl(['get', 'pods', '-o', 'name']);
    return stdout === '' ? true : undefined;
  });
  // Pods without a grace period are gone from the API before the node has ended them; whoever measures next is not to
  // share the machine with that.
  await subject.until('all processes gone', async () =>
    (await listProcesses(subject)).length <= running.length ? true : undefined,
  );
}

/** The sandboxes and containers that containerd has running. */
async function listProcesses(subject: Subject): Promise<readonly string[]> {
  const names = await subject.exec('agent', ['ls', '/run/containerd/io.containerd.runtime.v2.task/k8s.io']);
  return (names ?? '').split('\n').filter((name) => name !== '');
}

/** Seconds from the call of `kubectl run` until a client that watches has seen the pod run. */
async function runPod(subject: Subject, name: string): Promise<number> {
  const phases = ['get', 'pods', `--selector=run=${name}`, '--watch', '--output=jsonpath={.status.phase}{"\\n"}'];
  let isRunning = false;
  const watch = subject.startKubectl(phases, (line) => {
    isRunning ||= line === 'Running';
  });
  const startedAt = performance.now();
  await subject.kubectl(['run', name, `--image=${WORKLOAD_IMAGE}`, '--image-pull-policy=IfNotPresent']);
  await subject.until(`${name} running`, () => Promise.resolve(isRunning || undefined));
  const seconds = (performance.now() - startedAt) / 1000;
  watch.stop();
  await subject.kubectl(['delete', 'pod', name, '--grace-period=0', '--force']);
  return seconds;
}
