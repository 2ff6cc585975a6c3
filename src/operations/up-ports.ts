/** What `up` does about the ports that `sandbar.yaml` publishes: their records, and a word on those that are not open. */
import { OBJECT_HASH } from '../model/names.ts';
import { objectIdOf } from '../model/objects.ts';
import type { Emit } from '../model/events.ts';
import type { Clock, Cluster } from '../model/ports.ts';
import {
  PORT_LABEL,
  formatHostPort,
  hashOfPortRecord,
  parseHostPorts,
  portRecordName,
  portRecordObject,
  type PublishSpec,
} from '../model/published.ts';
import type { KubernetesObject, ObjectResource, ObservedResource, ObservedState } from '../model/resources.ts';
import { listPortRecords } from './port-list.ts';

export type PortPlan = { readonly resources: readonly ObjectResource[]; readonly observed: ObservedState };

/** How long the agent may take to say what became of them; it takes some milliseconds. */
const ANSWER_MS = 2_000;
const PAUSE_MS = 40;

/** Compares what is declared with the records there are. What was published by command stays, unless the file takes it over. */
export function planPorts(publish: readonly PublishSpec[], configMaps: readonly KubernetesObject[]): PortPlan {
  const resources = publish.map((published): ObjectResource => {
    const object = portRecordObject({ ...published, origin: 'file' });
    const annotations = { [OBJECT_HASH]: hashOfPortRecord(object) };
    const metadata = { ...object.metadata, annotations };
    return { kind: 'object', id: objectIdOf(object), owner: 'ports', dependsOn: [], object: { ...object, metadata } };
  });
  const wanted = new Set(resources.map(({ id }) => id));
  const found = configMaps
    .filter(({ metadata: { labels } }) => labels?.[PORT_LABEL] !== undefined)
    .map((object): ObservedResource => {
      const id = objectIdOf(object);
      return { id, kind: 'object', owner: 'ports', ref: id, fingerprint: { object: hashOfPortRecord(object) }, object };
    })
    .filter(({ id, object }) => wanted.has(id) || object?.metadata.labels?.[PORT_LABEL] === 'file');
  return { resources, observed: new Map(found.map((resource) => [resource.id, resource])) };
}

/** A port that is taken is no failure of `up`: it is opened as soon as it is free. */
export async function warnOfClosed(
  publish: readonly PublishSpec[],
  {
    cluster,
    clock,
    emit,
    signal,
  }: { readonly cluster: Cluster; readonly clock: Clock; readonly emit: Emit; readonly signal: AbortSignal },
): Promise<void> {
  if (publish.length === 0) return;
  const wanted = new Set(publish.map(portRecordName));
  const deadline = clock.now() + ANSWER_MS;
  for (;;) {
    const records = (await listPortRecords(cluster)).filter(({ object }) => wanted.has(object.metadata.name));
    const answers = records.map(({ record, object }) => ({ record, answer: parseHostPorts(object)[0] }));
    const isOver = clock.now() >= deadline;
    if (!isOver && answers.some(({ answer }) => answer === undefined)) {
      await clock.sleep(PAUSE_MS, signal);
      continue;
    }
    for (const { record, answer } of answers) {
      if (answer?.state === 'open') continue;
      const why =
        answer?.state === 'taken' ? 'another program has it' : (answer?.detail ?? 'the agent says nothing of it');
      const text = `port ${formatHostPort(record)} is not open: ${why}`;
      emit({ type: 'warning', text, hint: 'it is opened as soon as that can be; sandbar port ls shows it' });
    }
    return;
  }
}
