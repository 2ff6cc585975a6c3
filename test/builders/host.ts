import type { Host } from '../../src/model/ports.ts';
import { FakeHost } from '../fakes/fake-host.ts';

/** A machine with these files (path → content); everything else of it may be replaced. */
export function fakeHost(files: Readonly<Record<string, string>> = {}, overrides: Partial<Host> = {}): FakeHost {
  const host = new FakeHost();
  for (const [path, content] of Object.entries(files)) host.files.set(path, { content, mode: 0o644, ageMs: 0 });
  return Object.assign(host, overrides);
}
