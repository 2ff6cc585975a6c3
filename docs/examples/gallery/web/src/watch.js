/**
 * Runs `server.js`, and runs it anew when its source changes. The next server listens before the last one goes, and
 * where it does not start the last one stays: no request ever fails because of an edit.
 */
import cluster from 'node:cluster';
import { watch } from 'node:fs';
import { join } from 'node:path';

// An editor's save is several events.
const QUIET_MS = 10;
/** How long a server may take to answer what it was asked before it was replaced. */
const PATIENCE_MS = 2_000;

let current;
let next;
let timer;

function start() {
  next?.process.kill('SIGKILL');
  const server = cluster.fork({ LIVE_RELOAD: 'true' });
  next = server;
  server.once('listening', () => {
    if (server !== next) return;
    const last = current;
    current = server;
    next = undefined;
    stop(last);
  });
  server.once('exit', (code) => {
    if (server === next) {
      next = undefined;
      console.error(`watch: the edited server ended with ${code}; the next edit starts it again`);
      current?.send({ problem: 'The edited server does not start: its log says why.' });
    } else if (server === current) {
      current = undefined;
      console.error(`watch: the server ended with ${code}; the next edit starts it again`);
    }
  });
}

function stop(server) {
  if (server === undefined) return;
  server.process.kill('SIGTERM');
  setTimeout(() => server.process.kill('SIGKILL'), PATIENCE_MS).unref();
}

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    clearTimeout(timer);
    for (const server of Object.values(cluster.workers)) stop(server);
    cluster.disconnect(() => process.exit(0));
  });
}

cluster.setupPrimary({ exec: join(import.meta.dirname, 'server.js') });
watch(import.meta.dirname, (event, name) => {
  if (!name?.endsWith('.js')) return;
  clearTimeout(timer);
  timer = setTimeout(start, QUIET_MS);
});
start();
