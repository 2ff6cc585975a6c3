import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const MINUTE_MS = 60_000;

/** Tests that share one Docker engine: one file after another, each with the time that containers take. */
const onEngine = {
  fileParallelism: false,
  testTimeout: 5 * MINUTE_MS,
  hookTimeout: 10 * MINUTE_MS,
  retry: 0,
};

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    projects: [
      // None of them changes what others see, and a world of its own for each file would take longer than the tests.
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 5_000, isolate: false } },
      { test: { name: 'contract', include: ['test/contract/**/*.test.ts'], ...onEngine } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...onEngine } },
      {
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          globalSetup: fileURLToPath(new URL('faults/setup.ts', import.meta.url)),
          ...onEngine,
          testTimeout: 15 * MINUTE_MS,
        },
      },
      {
        test: { name: 'ecosystem', include: ['test/ecosystem/**/*.test.ts'], ...onEngine, testTimeout: 15 * MINUTE_MS },
      },
      { test: { name: 'versions', include: ['test/versions/**/*.test.ts'], ...onEngine, testTimeout: 15 * MINUTE_MS } },
      { test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...onEngine, testTimeout: 15 * MINUTE_MS } },
    ],
  },
});
