/** `mount --save`: writes a mount into sandbar.yaml, so that `up` makes it for everybody. */
import path from 'node:path';
import { formatSource, saveMount } from '../config/save-mount.ts';
import { SandbarError } from '../model/errors.ts';
import { formatWorkload, type MountRecord, type MountTarget } from '../model/mounts.ts';
import type { Host } from '../model/ports.ts';

const FILE_NAME = 'sandbar.yaml';

/** Only what goes into a workload can be said in the file. */
export function requireSavable(target: MountTarget): Extract<MountTarget, { kind: 'workload' }> {
  if (target.kind === 'workload') return target;
  throw new SandbarError('USAGE', '--save needs a workload that the mount is for', {
    hint: 'for example sandbar mount ./src deployment/web:/app/src --save',
  });
}

/** Writes the mount into the file in use, or into a new one in the working directory; returns its path. */
export async function saveRecord(
  record: Pick<MountRecord, 'target' | 'source' | 'isReadOnly' | 'excluded'>,
  configFile: string | undefined,
  host: Host,
): Promise<string> {
  const { source, isReadOnly, excluded } = record;
  const { workload, path: target } = requireSavable(record.target);
  const file = configFile ?? path.join(host.workingDirectory, FILE_NAME);
  const directory = (await host.resolvePath(path.dirname(file))) ?? path.dirname(file);
  const text = saveMount(await host.readFile(file), formatWorkload(workload), {
    kind: 'bind',
    source: formatSource(source, directory),
    target,
    isReadOnly,
    createsSource: true,
    excluded,
  });
  await host.writeFileAtomically(file, text, 0o644);
  return file;
}
