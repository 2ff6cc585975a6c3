/** The life of a cluster: from nothing, through a first workload and a restart, to nothing. */
import type { Measurements } from '../measures.ts';
import { httpsStatus, type HostPorts, type Subject, type TimedEvent } from '../subject.ts';
import { verify } from '../verify.ts';
import { deploy, loadWorkloadImage, provideWorkloadImage } from '../workload.ts';

export async function prepareLife(subject: Subject): Promise<void> {
  await provideWorkloadImage(subject);
  await subject.up();
  await subject.provideKubectl();
}

export async function measureLife(subject: Subject, measurements: Measurements): Promise<void> {
  await subject.sandbar('down', '--volumes', '--yes');
  const startedAt = performance.now();
  const { seconds, events, ports } = await subject.up();
  await verify(subject, ports);
  measurements.record('up', seconds);
  measurements.record('up-verified', (performance.now() - startedAt) / 1000);
  recordSteps(events, measurements);

  await loadWorkloadImage(subject);
  const { ready, answered } = await deploy(subject);
  measurements.record('deployment', ready);
  measurements.record('pod-dns', answered);

  measurements.record('up-again', (await subject.sandbar('up')).seconds);
  measurements.record('status', (await subject.sandbar('status')).seconds);
  await measureRestart(subject, ports, measurements);

  measurements.record('down', (await subject.sandbar('down')).seconds);
  measurements.record('up-kept', (await subject.sandbar('up')).seconds);
  measurements.record('down-volumes', (await subject.sandbar('down', '--volumes', '--yes')).seconds);
}

async function measureRestart(subject: Subject, ports: HostPorts, measurements: Measurements): Promise<void> {
  const container = subject.docker.getContainer(subject.containerName('control-plane'));
  const startedAt = performance.now();
  await container.restart();
  await subject.until('/readyz', async () => {
    const status = await httpsStatus(`https://127.0.0.1:${String(ports.api)}/readyz`);
    return status === 200 ? true : undefined;
  });
  const readyAt = Date.now();
  measurements.record('restart', (performance.now() - startedAt) / 1000);
  const { State: state } = await container.inspect();
  measurements.record('restart-start', (readyAt - Date.parse(state.StartedAt)) / 1000);
  await subject.sandbar('up');
}

/** Where the time of `up` goes: when each step began and ended since the command was called. */
function recordSteps(events: readonly TimedEvent[], measurements: Measurements): void {
  const starts = new Map<unknown, number>();
  /** What a step asks just now, and since when. */
  const questions = new Map<unknown, { readonly text: unknown; readonly start: number }>();
  const planned = events.find(({ type }) => type === 'plan');
  if (planned !== undefined) measurements.recordStep('look and plan', 0, planned.at);
  for (const { type, stepId, text, at } of events) {
    if (type === 'step-started') starts.set(stepId, at);
    if (type !== 'step-progress' && type !== 'step-finished') continue;
    const question = questions.get(stepId);
    if (question !== undefined) {
      measurements.recordStep(`${String(stepId)}: ${String(question.text)}`, question.start, at);
    } else if (type === 'step-finished') {
      measurements.recordStep(String(stepId), starts.get(stepId) ?? 0, at);
    }
    if (type === 'step-progress') questions.set(stepId, { text, start: at });
  }
  const result = events.find(({ type }) => type === 'result');
  if (result !== undefined) measurements.recordStep('return', events.at(-2)?.at ?? 0, result.at);
}
