import { describe, expect, it } from 'vitest';
import type { World } from '../../src/diagnosis/explanation.ts';
import { formatQuantity, parseQuantity, type Objects, type Pod } from '../../src/diagnosis/kubernetes.ts';
import { checkPods } from '../../src/diagnosis/pods.ts';
import {
  ago,
  containerStatus,
  crashingPod,
  eventOf,
  nodeWith,
  pods,
  podWith,
  unscheduledPod,
  waitingPod,
  worldOf,
} from '../builders/diagnosis.ts';

/** The line of a pod, without who it is. */
function lineOf(pod: Pod, objects: Partial<Objects> = {}, changes: Partial<Omit<World, 'objects'>> = {}): string {
  const lines = pods(worldOf({ ...objects, pods: [pod, ...(objects.pods ?? [])] }, changes));
  return lines.join('\n').replace('pod shop/web: ', '');
}

function fixOf(pod: Pod, objects: Partial<Objects> = {}, changes: Partial<Omit<World, 'objects'>> = {}) {
  const [check] = checkPods(worldOf({ ...objects, pods: [pod] }, changes));
  return { fix: check?.fix, repair: check?.repair };
}

const lastLine = (line: string) => ({ lastLines: new Map([['shop/web/main', line]]) });

describe('a pod that is well', () => {
  it.each([
    ['runs', podWith()],
    ['is done', podWith({ status: { phase: 'Succeeded' } })],
    ['is being made', waitingPod('ContainerCreating')],
    ['waits for its first look of the scheduler', { ...podWith(), spec: {}, status: { phase: 'Pending' } }],
    [
      'has restarted long ago',
      podWith({
        status: {
          containerStatuses: [
            containerStatus({ restartCount: 2, lastState: { terminated: { exitCode: 1, finishedAt: ago(3600) } } }),
          ],
        },
      }),
    ],
    ['is just being deleted', podWith({ metadata: { deletionTimestamp: ago(2), finalizers: ['a/b'] } })],
  ] as const)('that %s is not spoken of', (_, pod) => {
    const young = { ...pod, metadata: { ...pod.metadata, creationTimestamp: ago(3) } };
    expect(lineOf(young)).toBe('');
  });
});

describe('an image', () => {
  it('that the engine has is to be loaded, and doctor can do that', () => {
    const pod = waitingPod('ImagePullBackOff', 'Back-off pulling image "shop:1"');
    const engine = { engineImages: new Set(['shop:1']) };
    expect(lineOf(pod, {}, engine)).toBe('error image shop:1 is in the Docker engine, but not on the node');
    expect(fixOf(pod, {}, engine)).toEqual({
      fix: 'sandbar image load shop:1',
      repair: { kind: 'load-image', imageRef: 'shop:1' },
    });
  });

  it.each([
    ['ErrImagePull', undefined, 'and it cannot be pulled'],
    ['ErrImageNeverPull', 'Never', 'and imagePullPolicy is Never'],
  ])('that nobody has, with %s, is named as such', (reason, imagePullPolicy, end) => {
    const pod = waitingPod(reason, 'failed to pull and unpack image "shop:1": failed to resolve image: no such host', {
      ...(imagePullPolicy === undefined ? {} : { imagePullPolicy }),
    });
    expect(lineOf(pod)).toBe(`error image shop:1 is neither on the node nor in the Docker engine, ${end}`);
    expect(fixOf(pod).repair).toBeUndefined();
  });

  it('that is on the node by now only needs a moment', () => {
    const there = { nodeImages: new Set(['docker.io/library/shop:1']) };
    expect(lineOf(waitingPod('ImagePullBackOff'), {}, there)).toMatch(/^warning image shop:1 is on the node by now/);
  });

  it('that is on the node, but asked for elsewhere each time, names the policy', () => {
    const pod = waitingPod('ErrImagePull', '', { image: 'shop' });
    const there = { nodeImages: new Set(['docker.io/library/shop:latest']) };
    expect(lineOf(pod, {}, there)).toMatch(/^error image shop is on the node, but imagePullPolicy Always/);
  });

  it('of a name that is none is told so', () => {
    expect(lineOf(waitingPod('InvalidImageName', '', { image: 'BAD//x' }))).toBe(
      'error "BAD//x" is no name of an image',
    );
  });

  it('for another architecture is known by what the kernel says', () => {
    const pod = crashingPod({ exitCode: 1, reason: 'Error' });
    const line = 'exec /server: exec format error';
    expect(lineOf(pod, {}, lastLine(line))).toBe("error image shop:1 is made for another architecture than the node's");
  });
});

describe('a container that ends', () => {
  it('is told with its exit code and its last line', () => {
    const pod = crashingPod({ exitCode: 3, reason: 'Error' });
    expect(lineOf(pod, {}, lastLine('no database'))).toBe(
      'error container main ended with exit code 3, after 3 restarts: no database',
    );
  });

  it('is told between its end and the next try too', () => {
    const pod = podWith({
      status: {
        containerStatuses: [
          containerStatus({ ready: false, state: { terminated: { exitCode: 2, finishedAt: ago(1) } } }),
        ],
      },
    });
    expect(lineOf(pod)).toBe('error container main ended with exit code 2');
  });

  it('is told while it runs for a moment in between, until it has run for a minute', () => {
    const runningFor = (seconds: number): Pod =>
      podWith({
        status: {
          containerStatuses: [
            containerStatus({
              restartCount: 4,
              state: { running: { startedAt: ago(seconds) } },
              lastState: { terminated: { exitCode: 3, finishedAt: ago(seconds + 5) } },
            }),
          ],
        },
      });
    expect(lineOf(runningFor(3))).toBe('error container main ended with exit code 3, after 4 restarts');
    expect(lineOf(runningFor(90))).toBe('');
  });

  it('for want of memory names its limit', () => {
    const pod = crashingPod({ exitCode: 137, reason: 'OOMKilled' }, { resources: { limits: { memory: '16Mi' } } });
    expect(lineOf(pod)).toBe(
      'error container main was killed for using more memory than its limit of 16Mi, after 3 restarts',
    );
    expect(fixOf(pod).fix).toBe('raise resources.limits.memory of container main');
  });

  it('because its program is not in the image names the command', () => {
    const message =
      'failed to create containerd task: failed to create shim task: OCI runtime create failed: executable file `/bin/nope` not found: No such file or directory';
    for (const pod of [
      waitingPod('RunContainerError', message),
      crashingPod({ exitCode: 128, reason: 'StartError', message }),
    ]) {
      expect(lineOf(pod)).toMatch(/^error container main cannot start: .*executable file `\/bin\/nope` not found/);
      expect(fixOf(pod).fix).toMatch(/^correct command of container main/);
    }
  });

  it('because its live mount is not there names the mount', () => {
    const message = 'OCI runtime create failed: live mount /home/ada/app is waiting: its container does not run';
    expect(lineOf(waitingPod('RunContainerError', message))).toMatch(/live mount \/home\/ada\/app is waiting/);
    expect(fixOf(waitingPod('RunContainerError', message)).repair).toEqual({ kind: 'up' });
  });

  it('by its liveness probe names the probe, not the signal', () => {
    const events = [eventOf('Unhealthy', 'Liveness probe failed: HTTP probe failed with statuscode: 500')];
    expect(lineOf(crashingPod({ exitCode: 137, reason: 'Error' }), { events })).toBe(
      'error the liveness probe of container main fails, so it is restarted: HTTP probe failed with statuscode: 500',
    );
  });
});

describe('what a container refers to', () => {
  it.each([
    ['configmap "app" not found', 'container main wants the ConfigMap "app", and there is none of that name'],
    ['secret "key" not found', 'container main wants the Secret "key", and there is none of that name'],
    [
      "couldn't find key zzz in ConfigMap shop/app",
      'container main wants the key "zzz" of ConfigMap "app", which does not have it',
    ],
    ['user is not numeric', 'container main cannot be made: user is not numeric'],
  ])('%s', (message, line) => {
    expect(lineOf(waitingPod('CreateContainerConfigError', message))).toBe(`error ${line}`);
  });

  it('as a volume is told by the event', () => {
    const events = [eventOf('FailedMount', 'MountVolume.SetUp failed for volume "s" : secret "key" not found')];
    const pod = waitingPod('ContainerCreating');
    expect(lineOf(pod, { events })).toBe('error its volume "s" wants the Secret "key", and there is none of that name');
    expect(fixOf(pod, { events }).fix).toBe(
      'sandbar kubectl create secret generic key -n shop --from-literal=KEY=VALUE',
    );
  });

  it('is told once, whoever of the workload suffers it', () => {
    const one = waitingPod('CreateContainerConfigError', 'secret "key" not found');
    const owner = { ownerReferences: [{ kind: 'ReplicaSet', name: 'web-1' }] };
    const all = ['web-a', 'web-b', 'web-c'].map((name) => ({ ...one, metadata: { ...one.metadata, name, ...owner } }));
    expect(pods(worldOf({ pods: all }))).toEqual([
      'error pod shop/web-a and 2 others of its workload: container main wants the Secret "key", and there is none of that name',
    ]);
  });
});

describe('a pod without a node', () => {
  it.each([
    [
      'cordoned',
      { spec: { unschedulable: true, taints: [{ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }] } },
      {},
      'the node is cordoned',
    ],
    [
      'tainted',
      { spec: { taints: [{ key: 'gpu', value: 'yes', effect: 'NoSchedule' }] } },
      {},
      "it does not tolerate the node's taint gpu=yes:NoSchedule",
    ],
    [
      'without the label',
      {},
      { nodeSelector: { disk: 'ssd' } },
      'its nodeSelector wants disk=ssd, which the node does not have',
    ],
    [
      'too small',
      {},
      { containers: [{ name: 'main', resources: { requests: { cpu: '64', memory: '1Gi' } } }] },
      'it requests 64 cpu where 2 of 2 is free',
    ],
    [
      'without the device',
      {},
      { containers: [{ name: 'main', resources: { requests: { 'example.com/gpu': '1' } } }] },
      'it requests 1 example.com/gpu where 0 of 0 is free',
    ],
    [
      'of another scheduler',
      {},
      { schedulingGates: [{ name: 'example.com/quota' }] },
      'it is held back by the scheduling gate example.com/quota',
    ],
    ['unknown to us', {}, {}, 'no node takes it: 1 node(s) violate pod anti-affinity'],
  ])('because the node is %s', (_, node, spec, line) => {
    const pod = unscheduledPod(
      spec,
      '0/1 nodes are available: 1 node(s) violate pod anti-affinity. no new claims to deallocate, preemption: 0/1',
    );
    expect(lineOf(pod, { nodes: [nodeWith(node)] })).toBe(`error ${line}`);
  });

  it('counts what other pods take, and not those that are over', () => {
    const other = (phase: string) =>
      podWith({
        metadata: { name: `other-${phase}` },
        spec: { containers: [{ name: 'main', resources: { requests: { cpu: '1500m' } } }] },
        status: { phase },
      });
    const pod = unscheduledPod({ containers: [{ name: 'main', resources: { requests: { cpu: '1' } } }] });
    expect(lineOf(pod, { pods: [other('Running'), other('Succeeded')] })).toBe(
      'error it requests 1 cpu where 0.5 of 2 is free',
    );
  });

  it('because of a port of the node names who has it', () => {
    const ports = [{ hostPort: 8099 }];
    const owner = podWith({ metadata: { name: 'first' }, spec: { containers: [{ name: 'main', ports }] } });
    expect(lineOf(unscheduledPod({ containers: [{ name: 'main', ports }] }), { pods: [owner] })).toBe(
      'error its hostPort 8099/TCP is taken by pod shop/first',
    );
  });

  it.each([
    ['that is not there', [], 'its volume "v" wants the claim "data", and there is none of that name'],
    [
      'of a class that is not there',
      [{ storageClassName: 'fast' }],
      'its claim "data" is not bound: there is no StorageClass "fast"',
    ],
    [
      'that wants a volume made by hand',
      [{ storageClassName: '' }],
      'its claim "data" is not bound: it wants no StorageClass, and no PersistentVolume fits it',
    ],
  ])('because of a claim %s', (_, specs, line) => {
    const claims = specs.map((spec) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'data', namespace: 'shop' },
      spec,
      status: { phase: 'Pending' },
    }));
    const pod = unscheduledPod({ volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }] });
    expect(lineOf(pod, { claims })).toBe(`error ${line}`);
  });

  it('because no class is the default one', () => {
    const claims = [
      {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        metadata: { name: 'data', namespace: 'shop' },
        spec: {},
        status: { phase: 'Pending' },
      },
    ];
    const pod = unscheduledPod({ volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }] });
    expect(lineOf(pod, { claims, storageClasses: [] })).toMatch(/there is no default StorageClass$/);
  });
});

describe('a pod that does not get ready', () => {
  const unready = podWith({ status: { containerStatuses: [containerStatus({ ready: false })] } });

  it('by its readiness probe has the last answer', () => {
    const events = [
      eventOf('Unhealthy', 'Readiness probe failed: dial tcp 10.244.0.5:80: connect: connection refused'),
      { ...eventOf('Unhealthy', 'Readiness probe failed: an older one'), lastTimestamp: ago(60) },
      { ...eventOf('Unhealthy', 'Readiness probe failed: of another'), involvedObject: { kind: 'Pod', name: 'x' } },
    ];
    expect(lineOf(unready, { events })).toBe(
      'error the readiness probe of container main fails, so it is not ready: dial tcp 10.244.0.5:80: connect: connection refused',
    );
  });

  it('is left alone while it has just started', () => {
    const events = [eventOf('Unhealthy', 'Readiness probe failed: connection refused')];
    const young = { running: { startedAt: ago(3) } };
    const pod = podWith({ status: { containerStatuses: [containerStatus({ ready: false, state: young })] } });
    expect(lineOf(pod, { events })).toBe('');
  });

  it('since its init container does not end has what that says', () => {
    const pod = podWith({
      spec: { initContainers: [{ name: 'wait' }] },
      status: {
        phase: 'Pending',
        initContainerStatuses: [containerStatus({ name: 'wait', ready: false })],
        containerStatuses: [containerStatus({ ready: false, state: { waiting: { reason: 'PodInitializing' } } })],
      },
    });
    expect(lineOf(pod, {}, { lastLines: new Map([['shop/web/wait', 'waiting for db']]) })).toBe(
      'warning init container wait has run for 300 s and does not end: waiting for db',
    );
  });

  it('since the node cannot make its sandbox says so', () => {
    const events = [eventOf('FailedCreatePodSandBox', 'Failed to create pod sandbox: no free address')];
    expect(lineOf(waitingPod('ContainerCreating'), { events })).toBe('error the node cannot make it');
  });
});

describe('a pod that is to go', () => {
  it('and has a finalizer names it, with the command that takes it off', () => {
    const pod = podWith({ metadata: { deletionTimestamp: ago(60), finalizers: ['example.com/never'] } });
    expect(lineOf(pod)).toBe('error it was deleted, and the finalizer example.com/never keeps it');
    expect(fixOf(pod).fix).toContain(`-p '{"metadata":{"finalizers":null}}'`);
  });

  it('and cannot, for its node is not ready, says so', () => {
    const pod = podWith({ metadata: { deletionTimestamp: ago(60) } });
    const nodes = [nodeWith({ status: { conditions: [{ type: 'Ready', status: 'Unknown' }] } })];
    expect(lineOf(pod, { nodes })).toBe('error it was deleted, and the node is not ready');
    expect(lineOf(pod)).toBe('error it was deleted, and its containers do not end');
  });
});

describe('quantities', () => {
  it.each([
    ['500m', 0.5],
    ['2', 2],
    ['1.5', 1.5],
    ['128Mi', 2 ** 27],
    ['1k', 1000],
    ['1Ki', 1024],
    ['1e3', 1000],
    ['1E', 1e18],
    ['much', undefined],
  ])('%s is %s', (text, value) => {
    expect(parseQuantity(text)).toBe(value);
  });

  it('are written as people read them', () => {
    expect(formatQuantity('memory', 2 ** 30)).toBe('1024Mi');
    expect(formatQuantity('cpu', 0.333333)).toBe('0.33');
  });
});
