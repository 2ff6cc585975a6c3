/** An answer of the API server that comes line by line, for as long as a request lasts. */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { ApiAccess } from '../model/ports.ts';

/**
 * Posts JSON over a connection of its own, which ends with the request: how the server knows that nobody waits any more.
 * Only the first line of the answer has to come in time: what it tells of may take as long as it takes.
 */
export async function postForLines(
  access: ApiAccess,
  {
    path,
    body,
    onLine,
    signal,
    firstLineMs,
  }: {
    readonly path: string;
    readonly body: string;
    readonly onLine: (line: string) => void;
    readonly signal: AbortSignal;
    readonly firstLineMs: number;
  },
): Promise<{ readonly status: number }> {
  const late = new AbortController();
  const timer = setTimeout(() => {
    late.abort(new Error(`no answer within ${String(firstLineMs / 1000)} s`));
  }, firstLineMs);
  const hear = (line: string): void => {
    clearTimeout(timer);
    onLine(line);
  };
  try {
    return await exchange(access, { path, body, onLine: hear, signal: AbortSignal.any([signal, late.signal]) });
  } catch (error) {
    late.signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function exchange(
  access: ApiAccess,
  {
    path,
    body,
    onLine,
    signal,
  }: {
    readonly path: string;
    readonly body: string;
    readonly onLine: (line: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<{ readonly status: number }> {
  const outgoing = request(new URL(path, access.server), {
    method: 'POST',
    agent: false,
    ca: access.ca,
    cert: access.certificate,
    key: access.key,
    signal,
    headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
  }).end(body);
  // What breaks later, the answer tells as well.
  outgoing.on('error', () => undefined);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  let rest = '';
  for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') onLine(line);
  }
  if (rest !== '') onLine(rest);
  return { status: response.statusCode ?? 0 };
}
