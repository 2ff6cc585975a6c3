/** What a command meets that is interrupted: at the n-th call to the outside, whichever port it is. */
import type { Writable } from 'node:stream';
import { SandbarError } from '../../src/model/errors.ts';
import type { Ports } from '../../src/model/ports.ts';
import type { Machine } from './machine.ts';

/** `abort`: Ctrl-C comes before the call. `die`: kill -9, before the call or after the outside has carried it out. */
export type Interruption = { readonly atCall: number; readonly kind: 'abort' | 'die' | 'die after' };

/**
 * Ports whose caller is interrupted. Of one that dies no call is ever answered again, its requests break and the input
 * of its programs ends, as when the kernel closes what a process had open. `onInterruption` is called then.
 */
function interrupted(ports: Ports, { atCall, kind }: Interruption, onInterruption: () => void): Ports {
  const dying = new AbortController();
  const inputs: Writable[] = [];
  let callsLeft = atCall;
  const never = new Promise<never>(() => undefined);
  const die = (): void => {
    dying.abort(new Error('killed'));
    for (const input of inputs) input.end();
    onInterruption();
  };
  const wrap = <Port extends object>(port: Port): Port =>
    new Proxy(port, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]): unknown => {
          if (name === 'close' || name === 'now' || name === 'withLock') return member.apply(target, args);
          if (dying.signal.aborted) return never;
          if (name === 'connectCluster' || name === 'connectObjectStore') return wrap(member.apply(target, args));
          callsLeft -= 1;
          if (callsLeft === 0 && kind === 'abort') onInterruption();
          if (callsLeft === 0 && kind === 'die') {
            die();
            return never;
          }
          const isLast = callsLeft === 0 && kind === 'die after';
          const answer: unknown = member.apply(target, args.map(breakable));
          if (!(answer instanceof Promise)) return answer;
          const settled = answer.finally(() => {
            if (isLast) die();
          });
          return Promise.race([settled, dead]).then(
            (value: unknown) => (dying.signal.aborted ? never : value),
            (error: unknown) => (dying.signal.aborted ? never : Promise.reject(error as Error)),
          );
        };
      },
    });
  const dead = new Promise((resolve) => {
    dying.signal.addEventListener('abort', resolve);
  });
  /** Options of a call, with what ends when the caller does. */
  function breakable(argument: unknown): unknown {
    if (argument === null || typeof argument !== 'object') return argument;
    const { stdin, signal } = argument as { stdin?: Writable; signal?: AbortSignal };
    if (typeof stdin === 'object') inputs.push(stdin);
    if (!(signal instanceof AbortSignal)) return argument;
    return { ...argument, signal: AbortSignal.any([signal, dying.signal]) };
  }
  return {
    ...ports,
    runtime: wrap(ports.runtime),
    host: wrap(ports.host),
    clock: wrap(ports.clock),
    connectCluster: (access) => wrap(ports.connectCluster(access)),
    connectObjectStore: (access) => wrap(ports.connectObjectStore(access)),
  };
}

/**
 * Interrupts `work` at its n-th call, for every n that it makes, each time on a machine of its own, and has `check` look
 * at what the next command finds. Returns how many calls there were.
 */
export async function interruptEverywhere<M extends Machine>(
  kind: Interruption['kind'],
  {
    begin,
    work,
    check,
  }: {
    readonly begin: () => Promise<M>;
    readonly work: (machine: M, signal: AbortSignal) => Promise<unknown>;
    readonly check: (machine: M, atCall: number) => Promise<void>;
  },
): Promise<number> {
  for (let atCall = 1; ; atCall += 1) {
    const machine = await begin();
    const interruption = new AbortController();
    const interrupt = (): void => {
      interruption.abort(new SandbarError('INTERRUPTED', 'interrupted'));
    };
    const died = new Promise<void>((resolve) => {
      interruption.signal.addEventListener('abort', () => {
        resolve();
      });
    });
    machine.wrapPorts = (ports) => interrupted(ports, { atCall, kind }, interrupt);
    const { signal } = kind === 'abort' ? interruption : new AbortController();
    // How it fails where it is interrupted is looked at elsewhere.
    const ended = work(machine, signal).then(
      () => undefined,
      () => undefined,
    );
    await (kind === 'abort' ? ended : Promise.race([ended, died]));
    machine.restartCommandLine();
    // What was on its way to the outside arrives.
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    await check(machine, atCall);
    if (!interruption.signal.aborted) return atCall - 1;
  }
}
