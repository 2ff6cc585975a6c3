/** Looks, before anything is created, at what the machine lacks: an error where a cluster cannot work, else a warning. */
import { checkMachine, type Machine } from '../diagnosis/machine.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Host, Runtime } from '../model/ports.ts';

/** Throws HOST_LIMIT or DISK_FULL where a cluster cannot work; warns where it may not for long. */
export async function preflight(runtime: Runtime, host: Host, emit: Emit): Promise<void> {
  const checks = checkMachine(await observeMachine(runtime, host));
  for (const { severity, code, message, fix } of checks.toSorted(bySeverity)) {
    const hint = fix === undefined ? {} : { hint: fix };
    if (severity === 'error') throw new SandbarError(code, message, hint);
    if (severity === 'warning') emit({ type: 'warning', text: message, ...hint });
  }
}

/** What the preconditions are decided from. */
export async function observeMachine(runtime: Runtime, host: Host): Promise<Machine> {
  const engine = await runtime.info();
  const [freeDiskBytes, inotifyLimits] = await Promise.all([
    // An engine in a virtual machine has a disk of its own, on which this path is not ours to ask.
    host.freeDiskBytes(engine.dataRoot),
    host.findInotifyLimits(),
  ]);
  return { engine, freeDiskBytes, inotifyLimits };
}

function bySeverity(a: { readonly severity: string }, b: { readonly severity: string }): number {
  return Number(b.severity === 'error') - Number(a.severity === 'error');
}
