import type { Clock } from '../../src/model/ports.ts';

/** Time that stands still until it is advanced; who sleeps wakes when it is their time. */
export class FakeClock implements Clock {
  #nowMs = Date.parse('2026-05-01T12:00:00Z');
  #sleepers: readonly { readonly wakesMs: number; readonly wake: () => void }[] = [];
  readonly #isSelfAdvancing: boolean;

  /** `isSelfAdvancing`: every sleep is over at once and moves the time by its length. */
  constructor({ isSelfAdvancing = false }: { readonly isSelfAdvancing?: boolean } = {}) {
    this.#isSelfAdvancing = isSelfAdvancing;
  }

  now(): number {
    return this.#nowMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isSelfAdvancing) {
      await this.advance(ms);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => {
        reject(signal?.reason as Error);
      };
      const wake = (): void => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      this.#sleepers = [...this.#sleepers, { wakesMs: this.#nowMs + ms, wake }];
      signal?.addEventListener('abort', abort);
    });
  }

  /** Moves the time on and lets those run whose sleep is over. */
  async advance(ms: number): Promise<void> {
    this.#nowMs += ms;
    const due = this.#sleepers.filter(({ wakesMs }) => wakesMs <= this.#nowMs);
    this.#sleepers = this.#sleepers.filter((sleeper) => !due.includes(sleeper));
    for (const { wake } of due) wake();
    // All that follows from it without waiting for anything has happened after a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }
}
