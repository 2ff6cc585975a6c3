/** A cluster in memory that can be reset: its control plane, its node and the programs of the worker do their part. */
import { Readable } from 'node:stream';
import type { Kept } from '../../src/config/keep.ts';
import type { FakeContainer, FakeProgram } from '../fakes/fake-runtime.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';
import { createTar, readMember, readTar } from '../../src/model/tar.ts';
import { reset, type ResetRequest, type ResetResult } from '../../src/operations/reset.ts';
import { exportSnapshot, importSnapshot, type ExportTarget } from '../../src/operations/snapshot-archive.ts';
import { restoreSnapshot } from '../../src/operations/snapshot-restore.ts';
import {
  createSnapshot,
  findSnapshots,
  removeSnapshots,
  type SnapshotContext,
} from '../../src/operations/snapshots.ts';
import { SPEC } from './cluster.ts';
import { Machine } from './machine.ts';

const VOLUME = 'sandbar-dev-';

type ResetBody = {
  readonly from: 'golden' | 'snapshot';
  readonly keep: {
    readonly keys: readonly string[];
    readonly namespaces: readonly string[];
    readonly hasVolumes: boolean;
  };
};

export class ResetMachine extends Machine {
  /** What the control plane goes back to; undefined in a cluster of an older version. */
  golden: ReadonlyMap<string, KubernetesObject> | undefined;
  /** Whether writes wait. */
  isHeld = false;
  /** What stood still while something was copied, copy by copy. */
  readonly stillDuringCopies: string[] = [];
  /** Options of each `sandbar-agent reset`. */
  readonly agentResets: string[] = [];
  freeOnDisk = 10 ** 12;
  images: readonly { readonly name: string; readonly id: string }[] = [{ name: 'shop:dev', id: 'sha256:1' }];

  /** A cluster that runs, with what a user did to it since. */
  static async start(): Promise<ResetMachine> {
    const machine = new ResetMachine();
    await machine.up();
    machine.golden = new Map(machine.cluster.objects);
    machine.#answer();
    machine.use();
    return machine;
  }

  /** What a user does: objects, data of a claim, a bucket. */
  use(word = 'mine'): void {
    this.add({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
    this.add({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: word, namespace: 'shop' } });
    const claimRef = { namespace: 'shop', name: 'data' };
    this.add({ apiVersion: 'v1', kind: 'PersistentVolume', metadata: { name: 'pvc-1' }, spec: { claimRef } });
    this.put('claims', '/volumes/', '');
    this.put('claims', '/volumes/pvc-1/file', word);
    this.put('object-store', '/pictures/object', word);
    this.objectStore.buckets.set('pictures', { hasVersioning: false, objects: new Map([['a', Buffer.from(word)]]) });
  }

  add(object: KubernetesObject): void {
    const { apiVersion, kind, metadata } = object;
    this.cluster.objects.set([apiVersion, kind, metadata.namespace ?? '', metadata.name].join(' '), object);
  }

  put(volume: string, path: string, content: string): void {
    this.runtime.volumes.get(VOLUME + volume)?.files.set(path, { path, mode: 0o644, content });
  }

  filesOf(volume: string): Readonly<Record<string, string>> {
    const files = this.runtime.volumes.get(VOLUME + volume)?.files ?? new Map<string, { content: string }>();
    return Object.fromEntries([...files].map(([path, { content }]) => [path, content] as const).toSorted());
  }

  /** What a user could see, and what a command could have left behind. */
  state(): unknown {
    return {
      objects: [...this.cluster.objects.keys()].toSorted(),
      claims: this.filesOf('claims'),
      objectStore: this.filesOf('object-store'),
      buckets: [...this.objectStore.buckets.keys()],
      datastore: this.filesOf('datastore'),
      snapshots: Object.keys(this.filesOf('snapshots')),
      containers: [...this.runtime.containers.values()].map(({ spec, state }) => `${spec.name} ${state}`).toSorted(),
      isHeld: this.isHeld,
    };
  }

  reset(
    wish: Partial<Pick<ResetRequest, 'isHard' | 'confirm' | 'signal'>> & { readonly kept?: Partial<Kept> } = {},
  ): Promise<ResetResult> {
    const kept = {
      hasVolumes: false,
      hasBuckets: false,
      hasMounts: false,
      hasPorts: false,
      namespaces: [],
      ...wish.kept,
    };
    const agreed = { confirm: () => Promise.resolve(true), signal: new AbortController().signal };
    return reset(
      { spec: SPEC, isHard: false, timeoutMs: undefined, converge: () => this.converge(), ...agreed, ...wish, kept },
      this.ports,
      (event) => this.events.push(event),
    );
  }

  createSnapshot(name = 'one', signal?: AbortSignal): ReturnType<typeof createSnapshot> {
    return createSnapshot({ spec: SPEC, name }, this.#context(signal));
  }

  restoreSnapshot(name = 'one', signal?: AbortSignal): ReturnType<typeof restoreSnapshot> {
    const agreed = { confirm: () => Promise.resolve(true), timeoutMs: undefined };
    return restoreSnapshot({ spec: SPEC, name, converge: () => this.converge(), ...agreed }, this.#context(signal));
  }

  async snapshotNames(): Promise<readonly string[]> {
    return (await findSnapshots(SPEC.name, this.#context())).map(({ name }) => name);
  }

  removeSnapshots(...names: readonly string[]): Promise<void> {
    return removeSnapshots({ clusterName: SPEC.name, names }, this.#context());
  }

  exportSnapshot(name: string, target: ExportTarget): Promise<void> {
    return exportSnapshot({ clusterName: SPEC.name, name, target }, this.#context());
  }

  importSnapshot(path: string, name?: string): ReturnType<typeof importSnapshot> {
    return importSnapshot({ spec: SPEC, path, name }, this.#context());
  }

  /** The control plane cannot read its datastore any more. */
  damage(): void {
    this.cluster.isDown = true;
    this.#fail();
  }

  /** As the engine shows a control plane that ends at every start. */
  #fail(): void {
    const controlPlane = this.runtime.containers.get('sandbar-dev-control-plane')!;
    Object.assign(controlPlane, { state: 'restarting', exitCode: 65 });
    controlPlane.log.push('the datastore is damaged: member/snap/db: invalid');
  }

  #context(signal = new AbortController().signal): SnapshotContext {
    return { ports: this.ports, emit: (event) => this.events.push(event), signal };
  }

  #answer(): void {
    const { posts } = this.cluster;
    posts.set('/sandbar/reset', async ({ body, say }) => {
      const { from, keep } = body as ResetBody;
      const source = from === 'golden' ? this.golden : this.#restored();
      if (source === undefined) {
        say({ phase: 'failed', message: 'the cluster has no golden copy' });
        return 409;
      }
      say({ phase: 'held' });
      await new Promise((resolve) => setImmediate(resolve));
      const kept = [...this.cluster.objects].filter(
        ([, { kind, metadata }]) =>
          keep.keys.includes(`/registry/configmaps/${metadata.namespace ?? ''}/${metadata.name}`) ||
          keep.namespaces.includes(kind === 'Namespace' ? metadata.name : (metadata.namespace ?? '')),
      );
      const before = this.cluster.objects.size;
      this.cluster.objects.clear();
      for (const [key, object] of [...source, ...kept]) this.cluster.objects.set(key, object);
      say({ phase: 'done', deleted: before - this.cluster.objects.size, restored: 0, passes: 1, revision: 1 });
      return undefined;
    });
    posts.set('/sandbar/hold', async ({ say, signal }) => {
      this.put('datastore', '/snapshot.db', JSON.stringify([...this.cluster.objects]));
      this.isHeld = true;
      say({ phase: 'held' });
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => {
          resolve();
        });
      });
      this.isHeld = false;
      throw signal.reason as Error;
    });
    const { programs } = this.runtime;
    const agent = programs.get('sandbar-agent')!;
    programs.set('sandbar-agent', (call) => (call.args[0] === 'reset' ? this.#resetNode(call.args) : agent(call)));
    programs.set('sandbar-images', () => ({ stdout: JSON.stringify(this.images) }));
    for (const [name, program] of Object.entries(this.#workerPrograms())) programs.set(name, program);
    const start = this.runtime.startContainer.bind(this.runtime);
    this.runtime.startContainer = async (ref) => {
      await start(ref);
      const controlPlane = this.runtime.containers.get('sandbar-dev-control-plane');
      if (controlPlane?.state === 'running' && [controlPlane.id, controlPlane.spec.name].includes(ref))
        this.#startOver();
      if (this.cluster.isDown) this.#fail();
    };
  }

  /** What a control plane does first where it is told to. */
  #startOver(): void {
    if (this.filesOf('datastore')['/start-over'] === undefined) return;
    this.runtime.volumes.get(`${VOLUME}datastore`)?.files.delete('/start-over');
    this.cluster.objects.clear();
    for (const [key, object] of this.golden ?? []) this.cluster.objects.set(key, object);
    this.cluster.isDown = false;
  }

  #restored(): ReadonlyMap<string, KubernetesObject> | undefined {
    const content = this.filesOf('datastore')['/restore.db'];
    return content === undefined ? undefined : new Map(JSON.parse(content) as [string, KubernetesObject][]);
  }

  #resetNode(args: readonly string[]): { readonly stdout: string } {
    this.agentResets.push(args.slice(1).join(' '));
    const kept = args[args.indexOf('--keep-volumes') + 1] ?? '';
    const names = args.includes('--keep-volumes') ? kept.split(',') : [];
    const files = this.runtime.volumes.get(`${VOLUME}claims`)!.files;
    const goes = [...files.keys()].filter((path) => {
      const [, name] = /^\/volumes\/([^/]+)\//.exec(path) ?? [];
      return name !== undefined && kept !== 'all' && !names.includes(name);
    });
    for (const path of goes) files.delete(path);
    return { stdout: `{"phase":"stopped"}\n{"phase":"done","pods":2,"volumes":${String(goes.length)}}\n` };
  }

  /** As much of each program as the operations use. A folder is a file whose path ends with a slash. */
  #workerPrograms(): Readonly<Record<string, FakeProgram>> {
    const below = (container: FakeContainer, path: string): readonly string[] => {
      const { files, key } = this.runtime.place(container, path);
      return [...files.keys()].filter((file) => `${file}/`.startsWith(`${key}/`) || file.startsWith(`${key}/`));
    };
    const remove = (container: FakeContainer, path: string): void => {
      for (const file of below(container, path)) this.runtime.place(container, path).files.delete(file);
    };
    const copy = (container: FakeContainer, from: string, to: string): void => {
      const [source, target] = [this.runtime.place(container, from), this.runtime.place(container, to)];
      const isFile = source.files.has(source.key);
      if (!isFile && target.key !== '') target.files.set(`${target.key}/`, { path: to, mode: 0o755, content: '' });
      for (const file of below(container, from).filter((path) => path !== `${source.key}/`)) {
        const content = source.files.get(file)!;
        target.files.set(target.key + file.slice(source.key.length), content);
      }
    };
    const isStill = (name: string): boolean => this.runtime.containers.get(`sandbar-dev-${name}`)?.state !== 'running';
    const children = (container: FakeContainer, path: string): readonly string[] => {
      const { key } = this.runtime.place(container, path);
      const names = below(container, path).map((file) => file.slice(key.length + 1).split('/')[0] ?? '');
      return [...new Set(names.filter(Boolean))];
    };
    return {
      mkdir: ({ container, args }) => {
        const path = args.at(-1) ?? '';
        const { files, key } = this.runtime.place(container, path);
        files.set(`${key}/`, { path, mode: 0o755, content: '' });
        return {};
      },
      cp: ({ container, args }) => {
        const [from = '', to = ''] = args.slice(-2);
        const still = ['agent', 'object-store'].filter(isStill);
        this.stillDuringCopies.push([...still, ...(this.isHeld ? ['held'] : [])].join(' '));
        copy(container, from.replace(/\/\.$/, ''), to);
        return {};
      },
      mv: ({ container, args }) => {
        const [from = '', to = ''] = args.slice(-2);
        if (below(container, from).length === 0) return { exitCode: 1, stderr: `mv: cannot stat '${from}'` };
        if (from === to) return { exitCode: 1, stderr: `mv: '${from}' and '${to}' are the same file` };
        copy(container, from, to);
        remove(container, from);
        return {};
      },
      rm: ({ container, args }) => {
        remove(container, args.at(-1) ?? '');
        return {};
      },
      du: ({ args }) => ({
        stdout: args
          .slice(2)
          .map((path) => `1000\t${path}\n`)
          .join(''),
      }),
      df: () => ({ stdout: `Avail\n${String(this.freeOnDisk)}\n` }),
      sync: () => ({}),
      find: ({ container, args }) => {
        const [path = ''] = args;
        if (args.includes('-printf')) return { stdout: children(container, path).join('\n') };
        if (args.includes('-delete')) children(container, path).forEach((name) => remove(container, `${path}/${name}`));
        const dotted = children(container, path).filter((name) => name.startsWith('.'));
        if (args.includes('rm')) dotted.forEach((name) => remove(container, `${path}/${name}`));
        if (!args.includes('cat')) return {};
        const { files } = this.runtime.place(container, path);
        const found = [...files].filter(([file]) => /^\/[^/]+\/snapshot\.json$/.test(file));
        return { stdout: found.map(([, { content }]) => content).join('') };
      },
      tar: async ({ container, args, stdin }) => {
        const folder = args[args.indexOf('-C') + 1] ?? '';
        const { files, key } = this.runtime.place(container, folder);
        if (args.includes('-c')) {
          const members = args.slice(args.indexOf('-C') + 2).flatMap((part) => below(container, `${folder}/${part}`));
          const read = (file: string) => ({
            path: file.slice(key.length + 1),
            mode: 0o644,
            content: files.get(file)!.content,
          });
          return { stdout: createTar(members.map(read)).toString('latin1') };
        }
        for await (const member of readTar(Readable.from([Buffer.from(stdin)]))) {
          const content = (await readMember(member)).toString();
          files.set(`${key}/${member.path}`, { path: member.path, mode: 0o644, content });
        }
        return {};
      },
    };
  }
}
