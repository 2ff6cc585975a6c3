/** Whether file events reach the pods: what is asked of the node, what its answer means, and what a relay sends. */
import { dirname } from 'node:path/posix';
import { hashOf } from '../model/hash.ts';
import type { FileEvents } from '../model/mounts.ts';

/** Files that are made and removed in a source to see whether the node hears of it begin with this. */
const PROBE_PREFIX = '.sandbar-probe-';

/** Printed by the watch once it is set: from then on no event is missed. */
const WATCHING = 'watching';

/** Exit status of the watch when nothing came. */
const NOTHING_SEEN = 3;

/** What `sandbar mounts` says of a mount's events. `stopped`: they are relayed, but no relay runs. */
export type ShownEvents = FileEvents | 'stopped' | 'unknown';

/** A name that no other probe has. */
export function probeNameOf(seed: unknown): string {
  return `${PROBE_PREFIX}${hashOf(seed).slice(0, 8)}`;
}

/** True of what an interrupted probe left behind. */
export function isProbe(fileName: string): boolean {
  return fileName.startsWith(PROBE_PREFIX);
}

export function watchCommand(id: string, probeName: string, { timeoutS }: { readonly timeoutS: number }): string[] {
  return ['sandbar-agent', 'mounts', 'watch', id, '--name', probeName, '--timeout', `${String(timeoutS)}s`];
}

/** True once the output so far says that the watch is set. */
export function isWatching(output: string): boolean {
  return output.split('\n').includes(WATCHING);
}

/** What the end of the watch says; undefined where it says neither, because it failed. */
export function hasSeenProbe(exitCode: number): boolean | undefined {
  if (exitCode === 0) return true;
  return exitCode === NOTHING_SEEN ? false : undefined;
}

export function shownEvents(events: FileEvents | undefined, relay: { readonly isRunning: boolean }): ShownEvents {
  if (events === undefined) return 'unknown';
  return events === 'relayed' && !relay.isRunning ? 'stopped' : events;
}

/** Of what is not there any more. */
const GONE = 'gone';

/** One changed path below a source; `signature` differs when its content, its mode or what it is has changed. */
export type FileChange = { readonly path: string; readonly signature: string };

/** Line that makes the node raise an event for a change; of a file that has gone, its folder is what can be touched. */
export function formatTouch(id: string, { path, signature }: FileChange): string {
  const touched = signature === GONE ? dirname(path) : path;
  return `${JSON.stringify({ id, path: touched })}\n`;
}

/** Paths that are remembered; a checkout of a large repository is below it. */
const REMEMBERED = 50_000;

/**
 * Says of each change whether it is news. What the relay raises in the node comes back as an event of the host, on a
 * file that is still as it was when it was sent: that one is no news, or it would go round for ever.
 */
export function createEchoFilter(limit = REMEMBERED): (id: string, change: FileChange) => boolean {
  const signatures = new Map<string, string>();
  return (id, { path, signature }) => {
    const key = `${id}\n${path}`;
    if (signatures.get(key) === signature) return false;
    signatures.delete(key);
    signatures.set(key, signature);
    if (signatures.size > limit) {
      const [oldest] = signatures.keys();
      if (oldest !== undefined) signatures.delete(oldest);
    }
    return true;
  };
}
