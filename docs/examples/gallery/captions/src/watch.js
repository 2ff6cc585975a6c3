/**
 * Runs `server.js`, and runs it anew when its source changes: the last one has ended before the next one starts, for
 * only one may write the file. `node --watch` watches files, not their folder, and hears only of the first time that an
 * editor puts another file in a file's place.
 */
import { fork } from 'node:child_process';
import { watch } from 'node:fs';
import { join } from 'node:path';

// An editor's save is several events.
const QUIET_MS = 10;

let server;
let timer;
let isOutdated = false;
let isEnding = false;

function start() {
  isOutdated = false;
  server = fork(join(import.meta.dirname, 'server.js'));
  server.once('exit', (code) => {
    server = undefined;
    if (isEnding) process.exit(0);
    if (isOutdated) start();
    else console.error(`watch: the server ended with ${code}; the next edit starts it again`);
  });
}

function restart() {
  if (server === undefined) return start();
  isOutdated = true;
  server.kill('SIGTERM');
}

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    isEnding = true;
    clearTimeout(timer);
    if (server === undefined) process.exit(0);
    server.kill('SIGTERM');
  });
}

watch(import.meta.dirname, (event, name) => {
  if (!name?.endsWith('.js')) return;
  clearTimeout(timer);
  timer = setTimeout(restart, QUIET_MS);
});
start();
