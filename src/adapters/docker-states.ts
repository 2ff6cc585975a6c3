/** Containers start, stand still and end. What is so already is no failure. */
import type Dockerode from 'dockerode';
import type { Runtime } from '../model/ports.ts';
import type { ContainerState } from '../model/resources.ts';
import { engineStatus } from './docker-engine.ts';

export async function startContainer(docker: Dockerode, ref: string): Promise<void> {
  await unlessStatus(304, () => docker.getContainer(ref).start());
}

export async function stopContainer(
  docker: Dockerode,
  ref: string,
  { timeoutS }: { readonly timeoutS: number },
): Promise<void> {
  await unlessMissing(() => unlessStatus(304, () => docker.getContainer(ref).stop({ t: timeoutS })));
}

export async function pauseContainer(docker: Dockerode, ref: string): Promise<void> {
  await unlessState(docker, ref, {
    work: () => docker.getContainer(ref).pause(),
    isSo: (state) => state === 'paused',
  });
}

export async function unpauseContainer(docker: Dockerode, ref: string): Promise<void> {
  await unlessState(docker, ref, {
    work: () => docker.getContainer(ref).unpause(),
    isSo: (state) => state !== undefined && state !== 'paused',
  });
}

/** Removes a container with its nameless volumes; when somebody else is removing it, waits until it is gone. */
export async function removeWholly(docker: Dockerode, ref: string): Promise<void> {
  const container = docker.getContainer(ref);
  try {
    await unlessMissing(() => container.remove({ force: true, v: true }));
  } catch (cause) {
    if (engineStatus(cause) !== 409) throw cause;
    await unlessMissing(() => container.wait({ condition: 'removed' }));
  }
}

export async function inspectState(docker: Dockerode, ref: string): ReturnType<Runtime['inspectState']> {
  return unlessMissing(async () => {
    const { State: state } = await docker.getContainer(ref).inspect();
    const startedMs = Date.parse(state.StartedAt);
    return {
      state: state.Status as ContainerState,
      exitCode: state.ExitCode,
      error: state.Error,
      // Docker writes the year 1.
      startedMs: startedMs > 0 ? startedMs : undefined,
    };
  });
}

export function unlessMissing<T>(work: () => Promise<T>): Promise<T | undefined> {
  return unlessStatus(404, work);
}

/** Of what is not attached the engine says so in words alone, with the status of whatever else goes wrong. */
export async function unlessDetached(work: () => Promise<unknown>): Promise<void> {
  try {
    await unlessMissing(work);
  } catch (cause) {
    if (!/is not connected to/.test(String(cause))) throw cause;
  }
}

/** The outcome of `work`, or undefined where the engine answers with this status: what was wanted is so already. */
async function unlessStatus<T>(status: number, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (cause) {
    if (engineStatus(cause) === status) return undefined;
    throw cause;
  }
}

/** Engines refuse to freeze what is frozen with a status of their own each: the state itself tells whether it is so. */
async function unlessState(
  docker: Dockerode,
  ref: string,
  {
    work,
    isSo,
  }: { readonly work: () => Promise<unknown>; readonly isSo: (state: ContainerState | undefined) => boolean },
): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (!isSo((await inspectState(docker, ref))?.state)) throw cause;
  }
}
