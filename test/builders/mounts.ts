/** A cluster in memory with workloads, on which mounts work: admission, a node that places folders, controllers. */
import {
  MOUNT_PLACE_LABEL,
  nodePathOf,
  parseRecord,
  recordObject,
  volumeNameOf,
  type MountRecord,
} from '../../src/model/mounts.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';
import type { ExecResult } from '../../src/model/ports.ts';
import type { PlacedMount } from '../../src/operations/mount-agent.ts';
import type { FakeProgram } from '../fakes/fake-runtime.ts';
import { Machine } from './machine.ts';

type Pod = KubernetesObject & { readonly spec: PodSpec };
type PodSpec = {
  readonly containers: readonly { readonly name: string; readonly volumeMounts?: readonly unknown[] }[];
  readonly volumes?: readonly { readonly name: string }[];
};

export class MountMachine extends Machine {
  /** How changes on the host reach the node. */
  delivery: 'native' | 'relayed' | 'none' = 'native';
  /** What the node says of mounts, by id; those not named are attached. */
  readonly placed = new Map<string, Partial<PlacedMount>>();
  /** Why a mount does not come; undefined where it does. */
  attachProblem: string | undefined;
  /** New pods do not become ready while this says why. */
  podProblem: string | undefined;
  /** Lines that a relay sent to the node. */
  readonly touches: string[] = [];
  /** Workloads that were rolled, in order. */
  readonly rolled: string[] = [];
  #pods = 0;

  /** A running cluster with the project of the tests in place. */
  static async start(): Promise<MountMachine> {
    const machine = new MountMachine();
    await machine.up();
    machine.runtime.programs.set('sandbar-agent', machine.#agent);
    machine.cluster.admit = (object) => machine.#admit(object);
    machine.#controlRollouts();
    machine.namespace('default');
    for (const file of ['src/server.js', 'package.json']) machine.file(`/home/ada/app/${file}`);
    return machine;
  }

  file(path: string, content = ''): void {
    this.host.files.set(path, { content, mode: 0o644, ageMs: 0 });
  }

  namespace(name: string, labels: Readonly<Record<string, string>> = {}): void {
    this.#put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  }

  /** A workload with running pods, made as its controller would. */
  workload(
    kind: 'Deployment' | 'StatefulSet' | 'CronJob' | 'ReplicaSet',
    name: string,
    options: { readonly namespace?: string; readonly replicas?: number; readonly spec?: object } = {},
  ): void {
    const { namespace = 'default', replicas = 1, spec = {} } = options;
    const template = { spec: { containers: [{ name: 'main' }, { name: 'proxy' }] } };
    const isCronJob = kind === 'CronJob';
    this.#put({
      apiVersion: isCronJob ? 'batch/v1' : 'apps/v1',
      kind,
      metadata: { name, namespace },
      spec: { ...(isCronJob ? { jobTemplate: { spec: { template } } } : { template, replicas }), ...spec },
      status: statusOf(replicas),
    });
    for (let index = 0; index < replicas; index += 1) this.#startPod(kind, name, namespace);
  }

  records(): readonly MountRecord[] {
    return this.#objects('ConfigMap')
      .map(parseRecord)
      .filter((record) => record !== undefined);
  }

  /** Volumes of the pods that run, by their pods' names. */
  volumes(): Readonly<Record<string, readonly string[]>> {
    const pods = this.#objects('Pod') as readonly Pod[];
    return Object.fromEntries(
      pods.map(({ metadata, spec }) => [metadata.name, (spec.volumes ?? []).map(({ name }) => name)]),
    );
  }

  mountContainers(): readonly string[] {
    return [...this.runtime.containers.values()]
      .filter(({ spec, state }) => spec.name.startsWith('sandbar-dev-mount-') && state === 'running')
      .map(({ spec }) => spec.name);
  }

  /** Puts a mount there as `up` does with one of sandbar.yaml. */
  declare(record: MountRecord): void {
    this.#put(recordObject(record));
  }

  readonly #agent: FakeProgram = ({ args, stdin, print }): Promise<Partial<ExecResult>> | Partial<ExecResult> => {
    const [, verb, id = '', , name = ''] = args;
    switch (verb) {
      case 'list':
        return { stdout: JSON.stringify(this.records().map((record) => this.#describe(record))) };
      case 'wait':
        return this.attachProblem === undefined ? {} : { exitCode: 1, stderr: `${this.attachProblem}\n` };
      case 'watch':
        return this.#watch(id, name, print);
      case 'touch':
        this.touches.push(...stdin.split('\n').filter(Boolean));
        return {};
      default:
        return { stdout: '10.96.0.1\n' };
    }
  };

  /** Sees what was written after it said that it watches, and nothing else. */
  async #watch(id: string, name: string, print: (text: string) => void): Promise<Partial<ExecResult>> {
    const record = this.records().find((one) => one.id === id);
    const probe = `${record?.source ?? ''}/${name}`;
    const before = this.host.files.has(probe);
    const touchedBefore = this.host.touchedFiles.length;
    print('watch');
    print('ing\n');
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    const isChanged =
      record?.sourceType === 'File'
        ? this.host.touchedFiles.length > touchedBefore
        : !before && this.host.files.has(probe);
    const arrives = this.delivery === 'native' || (this.delivery === 'relayed' && record?.events === 'relayed');
    return isChanged && arrives ? { stdout: 'seen\n' } : { exitCode: 3, stdout: 'nothing\n' };
  }

  #describe({ id }: MountRecord): PlacedMount {
    const attached = { state: 'attached', detail: '', fileSystem: 'ext4', ownership: 'same' } as const;
    return { id, ...attached, ...this.placed.get(id) };
  }

  #admit(object: KubernetesObject): KubernetesObject {
    if (object.kind !== 'Pod') return object;
    const pod = object as Pod;
    const admitted = this.#objects('ConfigMap')
      .filter(({ metadata }) => metadata.labels?.[MOUNT_PLACE_LABEL] === 'workload')
      .map(parseRecord)
      .filter((record) => record?.target.kind === 'workload' && record.parentId === undefined)
      .filter((record) => record !== undefined && isOf(pod, record));
    return admitted.reduce<Pod>((result, record) => withMount(result, record!), pod);
  }

  #startPod(kind: string, name: string, namespace: string): void {
    this.#pods += 1;
    const hash = `t${String(this.rolled.length)}`;
    const owner =
      kind === 'Deployment'
        ? { kind: 'ReplicaSet', name: `${name}-${hash}`, controller: true }
        : kind === 'CronJob'
          ? { kind: 'Job', name: `${name}-1`, controller: true }
          : { kind, name, controller: true };
    const metadata = {
      name: `${name}-${String(this.#pods)}`,
      namespace,
      labels: { 'pod-template-hash': hash },
      ownerReferences: [owner],
      creationTimestamp: new Date(this.clock.now() + this.#pods).toISOString(),
    };
    const spec = { containers: [{ name: 'main' }, { name: 'proxy' }] };
    const status =
      this.podProblem === undefined
        ? { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] }
        : {
            phase: 'Pending',
            conditions: [{ type: 'Ready', status: 'False' }],
            containerStatuses: [
              { name: 'main', ready: false, state: { waiting: { reason: 'Waiting', message: this.podProblem } } },
            ],
          };
    this.#put(this.#admit({ apiVersion: 'v1', kind: 'Pod', metadata, spec, status }));
  }

  /** A changed template: old pods go, new ones come, through admission. */
  #controlRollouts(): void {
    const { cluster } = this;
    const patch = cluster.patch.bind(cluster);
    cluster.patch = async (ref, change) => {
      const patched = await patch(ref, change);
      if (ref.kind === 'ConfigMap') return patched;
      const { name, namespace = 'default' } = ref.metadata;
      this.rolled.push(`${ref.kind} ${namespace}/${name}`);
      const old = this.#objects('Pod').filter(
        ({ metadata }) => metadata.namespace === namespace && metadata.name.startsWith(`${name}-`),
      );
      for (const pod of old) await cluster.remove(pod);
      for (let index = 0; index < old.length; index += 1) this.#startPod(ref.kind, name, namespace);
      this.#put({ ...patched, status: statusOf(this.podProblem === undefined ? old.length : 0) });
      return patched;
    };
  }

  #objects(kind: string): readonly KubernetesObject[] {
    return [...this.cluster.objects.values()].filter((object) => object.kind === kind);
  }

  #put(object: KubernetesObject): void {
    const { apiVersion, kind, metadata } = object;
    this.cluster.objects.set([apiVersion, kind, metadata.namespace ?? '', metadata.name].join(' '), object);
  }
}

function statusOf(ready: number): object {
  return { replicas: ready, updatedReplicas: ready, readyReplicas: ready, availableReplicas: ready };
}

function isOf(pod: KubernetesObject, { target }: MountRecord): boolean {
  if (target.kind === 'node' || pod.metadata.namespace !== target.workload.namespace) return false;
  const [owner] = (pod.metadata.ownerReferences ?? []) as readonly { readonly kind: string; readonly name: string }[];
  const { kind, name } = target.workload;
  if (owner === undefined) return kind === 'Pod' && pod.metadata.name === name;
  if (kind === 'Deployment') return owner.kind === 'ReplicaSet' && owner.name.replace(/-[^-]+$/, '') === name;
  if (kind === 'CronJob') return owner.kind === 'Job' && owner.name.replace(/-[^-]+$/, '') === name;
  return owner.kind === kind && owner.name === name;
}

function withMount(pod: Pod, record: MountRecord): Pod {
  const name = volumeNameOf(record.id);
  const { containers, volumes = [] } = pod.spec;
  const mountPath = record.target.kind === 'workload' ? record.target.path : '';
  const [first, ...rest] = containers;
  const volumeMount = { name, mountPath, readOnly: record.isReadOnly };
  const container = { ...first!, volumeMounts: [...(first?.volumeMounts ?? []), volumeMount] };
  const volume = { name, hostPath: { path: nodePathOf(record.id), type: record.sourceType } };
  return { ...pod, spec: { ...pod.spec, containers: [container, ...rest], volumes: [...volumes, volume] } };
}
