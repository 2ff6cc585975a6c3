/** Tells open pages that a file of the front end has changed, so that an edit is seen without a click. */
import { watch } from 'node:fs';
import { PUBLIC_DIR } from './page.js';

const HEARTBEAT_MS = 25_000;
// An editor's save is several events; a page that loads between them would see half of it.
const QUIET_MS = 10;

/** @param {{ isEnabled: boolean }} options */
export function watchFrontEnd({ isEnabled }) {
  const pages = new Set();
  const tell = (text) => pages.forEach((page) => page.write(text));
  if (isEnabled) {
    watch(
      PUBLIC_DIR,
      collect((names) => tell(`event: edit\ndata: ${JSON.stringify(names)}\n\n`)),
    );
    setInterval(() => tell(': still here\n\n'), HEARTBEAT_MS).unref();
  }

  return {
    isEnabled,
    subscribe(response) {
      if (!isEnabled) return response.writeHead(404).end();
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write('retry: 250\n\n');
      pages.add(response);
      response.once('close', () => pages.delete(response));
    },
    close() {
      for (const page of pages) page.end();
    },
  };
}

/** Calls once with the names of all files of a burst of events. */
function collect(callback) {
  const names = new Set();
  let timer;
  return (event, name) => {
    names.add(name);
    clearTimeout(timer);
    timer = setTimeout(() => {
      callback([...names]);
      names.clear();
    }, QUIET_MS);
  };
}
