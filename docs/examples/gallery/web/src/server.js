/** Serves the gallery's page and its API; pictures go to the object store, captions to the captions service. */
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { hostname } from 'node:os';
import { pipeline } from 'node:stream/promises';
import { connectCaptions } from './captions.js';
import { readBody, refusal, sendJson } from './http.js';
import { openBucket } from './object-store.js';
import { watchSource } from './live-reload.js';
import { sendPage, sendPublicFile } from './page.js';
import {
  MAX_PICTURE_BYTES,
  detectPicture,
  isPictureKey,
  newPictureKey,
  pageOfNewest,
  parseCount,
  typeOfKey,
} from './pictures.js';

const { PORT = '8080', BUCKET = 'pictures', CAPTIONS_URL = 'http://localhost:8081' } = process.env;
const { POD_NAME = hostname(), NODE_NAME = '', AWS_ENDPOINT_URL_S3 = '' } = process.env;
// Uploads are held in memory before they are stored: this many at once keep within the pod's limit.
const MAX_UPLOADS = 4;

const bucket = openBucket(BUCKET);
const captions = connectCaptions(CAPTIONS_URL);
const source = watchSource({ isEnabled: process.env.LIVE_RELOAD === 'true', captionsUrl: CAPTIONS_URL });
let uploads = 0;
let isReady = false;

const routes = {
  'GET /': (request, response) => sendPage(response, { version: source.version() }),
  'GET /healthz': (request, response) => sendJson(response, 200, { ok: true }),
  'GET /readyz': (request, response) => sendJson(response, isReady ? 200 : 503, { ok: isReady }),
  'GET /events': (request, response) => source.subscribe(response),
  'GET /api/place': showPlace,
  'GET /api/pictures': listPictures,
  'POST /api/pictures': addPicture,
  'DELETE /api/pictures': removePicture,
  'POST /api/likes': likePicture,
  'GET /picture': sendPicture,
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://gallery');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  response.setHeader('x-served-by', POD_NAME);
  response.setHeader('x-content-type-options', 'nosniff');
  try {
    // Another site's page must not post here with the visitor's browser.
    if (method !== 'GET' && request.headers['sec-fetch-site'] === 'cross-site')
      throw refusal(403, 'not from another site');
    const route = routes[`${method} ${url.pathname}`];
    if (route !== undefined) await route(request, response, url.searchParams);
    else if (method === 'GET') await sendPublicFile(request, response, url.pathname);
    else throw refusal(405, `${request.method} is not for ${url.pathname}`);
  } catch (error) {
    fail(request, response, error);
  }
});

/** Which pod answers, and where what it shows is kept. */
async function showPlace(request, response) {
  const place = await captions.place().catch(() => undefined);
  sendJson(response, 200, {
    web: { pod: POD_NAME, node: NODE_NAME },
    objectStore: { bucket: BUCKET, endpoint: AWS_ENDPOINT_URL_S3 },
    captions: place ?? null,
  });
}

async function listPictures(request, response, query) {
  const [pictures, texts] = await Promise.all([bucket.list(), captions.all().catch((error) => error)]);
  const isWhole = texts instanceof Map;
  const offset = parseCount(query.get('offset'), { fallback: 0, max: 1_000_000 });
  const limit = parseCount(query.get('limit'), { fallback: 24, max: 1000 });
  sendJson(response, 200, {
    total: pictures.length,
    notice: isWhole ? null : `Captions and likes are missing: ${texts.message}.`,
    pictures: pageOfNewest(pictures, { offset, limit }).map((picture) => ({
      ...picture,
      text: '',
      likes: 0,
      ...(isWhole && texts.get(picture.key)),
    })),
  });
}

async function addPicture(request, response, query) {
  if (uploads >= MAX_UPLOADS) throw refusal(503, 'too many uploads at once: try again in a moment');
  uploads += 1;
  try {
    const bytes = await readBody(request, MAX_PICTURE_BYTES);
    const picture = detectPicture(bytes);
    if (picture === undefined) throw refusal(415, 'this is not a PNG, JPEG, GIF, WebP or AVIF picture');
    const key = newPictureKey({
      now: new Date(),
      random: randomBytes(6).toString('hex'),
      extension: picture.extension,
    });
    await bucket.put(key, bytes, picture.type);
    // The picture is kept even where its caption is not: it is the larger half of the work.
    const notice = await captions.setText(key, query.get('caption') ?? '').then(
      () => null,
      (error) => `The picture is stored, its caption is not: ${error.message}.`,
    );
    sendJson(response, 201, { key, notice });
  } finally {
    uploads -= 1;
  }
}

async function removePicture(request, response, query) {
  const key = keyOf(query);
  await bucket.remove(key);
  // A caption without its picture is shown nowhere.
  await captions.remove(key).catch(() => {});
  sendJson(response, 200, { key });
}

async function likePicture(request, response, query) {
  sendJson(response, 200, await captions.like(keyOf(query)));
}

async function sendPicture(request, response, query) {
  const key = keyOf(query);
  const left = new AbortController();
  response.once('close', () => left.abort());
  const picture = await bucket.get(key, request.headers['if-none-match'], left.signal);
  // The name says the type, not the object: whatever else lies in the bucket is never served as a page.
  response.setHeader('cache-control', 'no-cache');
  response.setHeader('content-security-policy', "default-src 'none'; sandbox");
  if (picture === undefined) return response.writeHead(304).end();
  response.writeHead(200, { 'content-type': typeOfKey(key), 'content-length': picture.bytes, etag: picture.etag });
  if (request.method === 'HEAD') {
    left.abort();
    return response.end();
  }
  await pipeline(picture.body, response);
}

function keyOf(query) {
  const key = query.get('key') ?? '';
  if (!isPictureKey(key)) throw refusal(404, 'there is no such picture');
  return key;
}

function fail(request, response, error) {
  if (response.destroyed) return;
  if (response.headersSent) return response.destroy();
  const status = error.status ?? 500;
  if (status === 500) console.error(error);
  // What is left of a refused upload is not waited for.
  if (!request.complete) response.setHeader('connection', 'close');
  sendJson(response, status, {
    error: status === 500 ? 'something failed here, see the log of this pod' : error.message,
  });
}

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    isReady = false;
    source.close();
    server.close(() => process.exit(0));
    server.closeIdleConnections();
    setTimeout(() => process.exit(0), 5_000).unref();
  });
}

server.requestTimeout = 60_000;
server.listen(Number(PORT), () => console.log(`web: listening on port ${PORT}`));
await bucket.opened;
isReady = true;
