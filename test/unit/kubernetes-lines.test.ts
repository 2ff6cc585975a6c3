import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { postForLines } from '../../src/adapters/kubernetes-lines.ts';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { adminAccess } from '../../src/operations/access.ts';
import type { ApiAccess } from '../../src/model/ports.ts';
import { fakeIdentity } from '../builders/cluster.ts';

let server: Server;
let access: ApiAccess;
/** What the server does with a request. */
let answer: (response: ServerResponse) => void;

beforeAll(async () => {
  const identity = await mintIdentity(fakeIdentity().request, await mintRoot('test'));
  const { certificate: cert, key } = identity.certificates.apiserver;
  server = createServer({ cert, key }, (request, response) => {
    request.resume();
    answer(response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  access = adminAccess(identity, (server.address() as AddressInfo).port);
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

async function post(onLine: (line: string) => void): Promise<void> {
  const signal = new AbortController().signal;
  await postForLines(access, { path: '/sandbar/reset', body: '{}', onLine, signal, firstLineMs: 15_000 });
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

it.each<[string, (response: ServerResponse) => void]>([
  ['accepts a request and says nothing', () => undefined],
  ['begins an answer and says no line', (response) => response.writeHead(200).flushHeaders()],
])('gives up on a server that %s', async (_, hang) => {
  answer = (response) => {
    hang(response);
    vi.advanceTimersByTime(15_000);
  };
  await expect(post(() => undefined)).rejects.toThrow('no answer within 15 s');
});

it('takes as long as the work does that a server has told of', async () => {
  let said: ServerResponse | undefined;
  answer = (response) => {
    said = response;
    response.write('{"phase":"held"}\n');
  };
  const lines: string[] = [];
  await post((line) => {
    lines.push(line);
    vi.advanceTimersByTime(60_000);
    said?.end('{"phase":"done"}\n');
  });
  expect(lines).toEqual(['{"phase":"held"}', '{"phase":"done"}']);
});
