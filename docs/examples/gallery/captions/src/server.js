/** A small REST service that keeps captions and likes in a file on a claim. */
import { createServer } from 'node:http';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { openStore } from './store.js';

const { PORT = '8081', DATA_DIR = './data', POD_NAME = hostname(), CLAIM = '' } = process.env;
const MAX_BODY_BYTES = 8 * 1024;

/** Who wants to know when this server ends: `web` does while its source is being worked on. */
const followers = new Set();
const store = await openStore(join(DATA_DIR, 'captions.json'));
const server = createServer(async (request, response) => {
  if (request.url === '/events') return follow(response);
  try {
    const { status = 200, body } = await answer(request);
    send(response, status, body);
  } catch (error) {
    const status = error.status ?? (error instanceof RangeError ? 507 : 500);
    if (status === 500) console.error(error);
    send(response, status, { error: status === 500 ? 'the caption could not be saved' : error.message });
  }
});

async function answer(request) {
  const { pathname } = new URL(request.url, 'http://captions');
  const [, collection, encodedId, detail] = pathname.split('/');
  if (pathname === '/healthz' || pathname === '/readyz') return { body: { ok: true } };
  if (pathname === '/') return { body: { pod: POD_NAME, claim: CLAIM, captions: store.count() } };
  if (collection !== 'captions') throw refusal(404, 'not found');
  if (encodedId === undefined && request.method === 'GET') {
    return { body: { pod: POD_NAME, claim: CLAIM, captions: store.all() } };
  }

  const id = decode(encodedId ?? '');
  if (id === '' || id.length > 1024) throw refusal(400, 'a caption belongs to a picture');
  if (request.method === 'PUT' && detail === undefined) {
    const { text } = await readJson(request);
    return { body: await store.setText(id, text) };
  }
  if (request.method === 'POST' && detail === 'likes') return { body: await store.like(id) };
  if (request.method === 'DELETE' && detail === undefined) {
    await store.remove(id);
    return { status: 204 };
  }
  throw refusal(405, `${request.method} is not for ${pathname}`);
}

/** An answer that lasts as long as this server. */
function follow(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' }).flushHeaders();
  followers.add(response);
  response.once('close', () => followers.delete(response));
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw refusal(413, 'a caption is shorter than that');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) ?? {};
  } catch {
    throw refusal(400, 'the body is not JSON');
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refusal(400, 'the name is not encoded as a URL has it');
  }
}

function refusal(status, message) {
  return Object.assign(new Error(message), { status });
}

function send(response, status, body) {
  if (body === undefined) return response.writeHead(status).end();
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    for (const follower of followers) follower.end();
    server.close(() => process.exit(0));
    server.closeIdleConnections();
    setTimeout(() => process.exit(0), 5_000).unref();
  });
}
server.listen(Number(PORT), () => console.log(`captions: listening on port ${PORT}, ${store.count()} captions`));
