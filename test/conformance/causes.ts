/** Why tests of the suite do not pass, found by hand. Every other failure is a bug until its cause is here. */
import type { KnownCause } from './report.ts';

const ONE_NODE = 'needs a second node: a sandbox has one';

export const KNOWN_CAUSES: readonly KnownCause[] = [
  {
    test: /Conformance Tests should have at least two untainted nodes/,
    message: /requires at least two nodes/,
    cause: ONE_NODE,
  },
  {
    test: /Daemon set .*should rollback without unnecessary restarts/,
    message: /needs a cluster with at least 2 nodes/,
    cause: ONE_NODE,
  },
];
