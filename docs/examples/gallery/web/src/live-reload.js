/** Tells open pages what has changed in the source, so that an edit is seen without a click. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, watch } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { PUBLIC_DIR } from './page.js';

const HEARTBEAT_MS = 25_000;
// An editor's save is several events; a page that loads between them would see half of it.
const QUIET_MS = 10;
const RETRY_MS = 100;
/** Files of ours, without those that editors make for themselves. */
const SOURCE = /^[a-z0-9-]+\.(css|html|js|svg)$/;
const RETRY_LATER_MS = 5_000;

/** @param {{ isEnabled: boolean, captionsUrl: string }} options */
export function watchSource({ isEnabled, captionsUrl }) {
  const pages = new Set();
  const tell = (event, content) => pages.forEach((page) => page.write(formatEvent(event, content)));
  const started = isEnabled ? versionOf(import.meta.dirname) : '';
  // With the page's own files as they are now: an edit while a page is loading comes before it can be told.
  const version = () => (isEnabled ? `${started}-${versionOf(PUBLIC_DIR)}` : '');
  if (isEnabled) {
    watch(
      PUBLIC_DIR,
      collectNames((names) => tell('edit', names)),
    );
    followCaptions(captionsUrl, () => tell('captions', {}));
    // What `watch.js` says of a server that was to replace this one.
    process.on('message', ({ problem }) => tell('problem', problem));
    setInterval(() => tell('alive', {}), HEARTBEAT_MS).unref();
  }

  return {
    /** Says which source a page is made from now; the same in all pods that have the same. Empty when not enabled. */
    version,
    subscribe(response) {
      if (!isEnabled) return response.writeHead(404).end();
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write(`retry: 50\n\n${formatEvent('server', version())}`);
      pages.add(response);
      response.once('close', () => pages.delete(response));
    },
    close() {
      for (const page of pages) page.end();
    },
  };
}

function formatEvent(event, content) {
  return `event: ${event}\ndata: ${JSON.stringify(content)}\n\n`;
}

/** Another where a file of ours in the folder is another. */
export function versionOf(directory) {
  const hash = createHash('sha256');
  for (const name of readdirSync(directory).sort()) {
    if (SOURCE.test(name)) hash.update(name).update(readIfThere(join(directory, name)));
  }
  return hash.digest('base64url').slice(0, 12);
}

/** Some editors remove a file before they write it anew. */
function readIfThere(path) {
  try {
    return readFileSync(path);
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}

/**
 * Calls once with the names of all files of a burst of events.
 * @param {(names: readonly string[]) => void} callback
 */
export function collectNames(callback) {
  const names = new Set();
  let timer;
  return (event, name) => {
    if (!SOURCE.test(name ?? '')) return;
    names.add(name);
    clearTimeout(timer);
    timer = setTimeout(() => {
      callback([...names]);
      names.clear();
    }, QUIET_MS);
  };
}

/** Calls whenever the captions service was gone and is back: an edit has started it anew. */
function followCaptions(baseUrl, onReturn) {
  let wasThere = false;
  const connect = () => {
    const later = (ms) => setTimeout(connect, ms).unref();
    const request = get(new URL('/events', baseUrl), (response) => {
      const isThere = response.statusCode === 200;
      if (isThere && wasThere) onReturn();
      wasThere ||= isThere;
      response.resume().once('close', () => later(isThere ? RETRY_MS : RETRY_LATER_MS));
    });
    // What breaks off later is not an error here: the response closes.
    request.on('error', () => request.res === null && later(RETRY_MS));
    request.on('socket', (socket) => socket.unref());
  };
  connect();
}
