import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../model/ports.ts';

/** The real time. */
export function createClock(): Clock {
  return {
    now: () => Date.now(),
    sleep: async (ms, signal) => {
      try {
        await sleep(ms, undefined, signal === undefined ? {} : { signal });
      } catch (error) {
        // Node rejects with an error of its own; the signal knows why it was aborted.
        signal?.throwIfAborted();
        throw error;
      }
    },
  };
}
