/** Views turn events into a screen, plain lines or JSON; all of it goes to stderr but JSON, which was asked for. */
import type { SandbarEvent } from '../../model/events.ts';
import type { GlobalOptions } from '../context.ts';
import type { Terminal } from '../terminal.ts';
import { jsonView } from './json.ts';
import { plainView } from './plain.ts';

export type View = {
  readonly emit: (event: SandbarEvent) => void;
  /** Settles what is still open on the screen; nothing may be printed before. */
  readonly close: () => Promise<void>;
};

export async function openView(options: GlobalOptions, terminal: Terminal): Promise<View> {
  if (options.output === 'ndjson') return jsonView(terminal.stdout);
  if (options.quiet === true) return { emit: () => undefined, close: () => Promise.resolve() };
  if (!terminal.isInteractive) return plainView(terminal);
  const { ttyView } = await import('./tty.ts');
  return ttyView(terminal);
}
