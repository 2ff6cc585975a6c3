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

export const GATEWAY_CAUSES: readonly KnownCause[] = [
  {
    test: /^BackendTLSPolicyConflictResolution$/,
    message: /no matches for kind "BackendTLSPolicy" in version "gateway\.networking\.k8s\.io\/v1alpha3"/,
    cause:
      "a mistake of the suite's: its objects are of `v1alpha3`, which the standard channel does not serve ([upstream's correction](https://github.com/kubernetes-sigs/gateway-api/pull/4241))",
  },
  {
    test: /./,
    message: /suite does not support /,
    cause: 'the class does not claim the feature, or the standard channel has no definition for it',
  },
];
