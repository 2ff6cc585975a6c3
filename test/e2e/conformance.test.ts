/** A part of upstream's conformance suite, chosen once so that every area is in it; `npm run conformance` runs the whole. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { CLUSTER_CONFIG, provideConformanceImages } from '../conformance/images.ts';
import type { SpecResult } from '../conformance/report.ts';
import { runSuite } from '../conformance/suite.ts';
import { createSandbox, ROOT } from './support.ts';

/** Beginnings of the tests' names, as upstream has them. */
const TESTS = [
  '[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should be able to deny pod and configmap creation',
  '[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod and apply defaults after mutation',
  '[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server',
  '[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2',
  '[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema',
  '[sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object',
  '[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning',
  '[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]',
  '[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod',
  '[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment',
  '[sig-api-machinery] Watchers should receive events on concurrent watches in same order',
  '[sig-apps] Daemon set [Serial] should run and stop simple daemon',
  '[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones',
  '[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it',
  '[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname',
  '[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods',
  '[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource',
  '[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations',
  '[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer',
  '[sig-auth] ServiceAccounts should mount projected service account token',
  '[sig-auth] SubjectReview should support SubjectReview API operations',
  '[sig-cli] Kubectl client Guestbook application should create and stop a working application',
  '[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments',
  '[sig-cli] Kubectl logs logs should be able to retrieve and filter logs',
  '[sig-network] DNS should provide DNS for services',
  '[sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices',
  '[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol',
  '[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp',
  '[sig-network] Proxy version v1 should proxy through a service and a pod',
  '[sig-network] Services should be able to create a functioning NodePort service',
  '[sig-network] Services should have session affinity work for service with type clusterIP',
  '[sig-node] ConfigMap should be consumable via the environment',
  '[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly',
  '[sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod',
  '[sig-node] ImageVolume should succeed with pod and pull policy of Always',
  '[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod',
  '[sig-node] Pods should support remote command execution over websockets',
  '[sig-node] Probing container should be restarted with a GRPC liveness probe',
  '[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false',
  '[sig-node] Sysctls [LinuxOnly] [NodeConformance] should support sysctls [Environment:NotInUserNS]',
  '[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching',
  '[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works',
  '[sig-storage] EmptyDir volumes pod should support shared volumes between containers',
  '[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC',
  '[sig-storage] Projected secret should be consumable from pods in volume as non-root with defaultMode and fsGroup set',
  '[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file',
];

const sandbox = createSandbox('conformance');
const runtime = new DockerRuntime({ platform: process.platform, env: process.env, homeDirectory: homedir() });
let results: readonly SpecResult[] = [];

beforeAll(async () => {
  const images = await provideConformanceImages(runtime, { root: ROOT, onProgress: () => undefined });
  await sandbox.writeConfig(CLUSTER_CONFIG);
  await sandbox.up();
  await sandbox.must(['image', 'load', ...images.testRefs]);
  results = await runSuite({
    docker: await runtime.client(),
    clusterName: sandbox.name,
    kubeconfig: await sandbox.must(['kubeconfig']),
    images,
    focus: TESTS.map(escapePattern),
    skip: [],
    processes: 3,
    directory: join(ROOT, '.sandbar', 'conformance', sandbox.name),
  });
}, 20 * 60_000);

afterAll(() => runtime.close());

it.each(TESTS)('%s', (name) => {
  const [result, ...others] = results.filter((candidate) => candidate.name.startsWith(name));
  expect(others).toEqual([]);
  expect(`${result?.outcome ?? 'not found'} ${result?.message ?? ''}`.trim()).toBe('passed');
});

it('nothing else of the suite failed', () => {
  expect(results.filter(({ name }) => !TESTS.some((test) => name.startsWith(test)))).toEqual([]);
});

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}
