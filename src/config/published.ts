/** `publish` of `sandbar.yaml`. */
import { formatHostPort, portRecordName, type PublishSpec } from '../model/published.ts';
import type { Problem } from './problem.ts';
import { parsePublished } from './publish-syntax.ts';
import type { WrittenConfig } from './schema.ts';

export function readPublished({ publish = [], ports = {} }: WrittenConfig): {
  readonly ports: readonly PublishSpec[];
  readonly problems: readonly Problem[];
} {
  const found: PublishSpec[] = [];
  const problems: Problem[] = [];
  for (const [index, text] of publish.entries()) {
    if (text === undefined) continue;
    const path = ['publish', index];
    const parsed = parsePublished(text, { namespace: 'default' });
    if ('problem' in parsed) {
      const { problem, suggestion } = parsed;
      problems.push({ path, message: problem, ...(suggestion === undefined ? {} : { suggestion }) });
      continue;
    }
    const message = findRepetition(parsed, found, ports);
    if (message === undefined) found.push(parsed);
    else problems.push({ path, message, suggestion: 'take another port' });
  }
  return { ports: found, problems };
}

/** A port has one owner. */
function findRepetition(
  published: PublishSpec,
  earlier: readonly PublishSpec[],
  ports: NonNullable<WrittenConfig['ports']>,
): string | undefined {
  const port = formatHostPort(published);
  if (earlier.some((other) => portRecordName(other) === portRecordName(published)))
    return `port ${port} is published twice`;
  const own = Object.entries(ports).find(([, number]) => number === published.hostPort);
  return own === undefined || published.protocol === 'UDP' ? undefined : `port ${port} is ports.${own[0]} already`;
}
