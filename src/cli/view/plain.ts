import type { SandbarEvent } from '../../model/events.ts';
import { paint, type Terminal } from '../terminal.ts';
import type { View } from './view.ts';

/** One line when something has ended or has to be known: for pipes, CI and dumb terminals. */
export function plainView(terminal: Pick<Terminal, 'stderr' | 'hasColours'>): View {
  const planned = new Set<string>();
  return {
    emit: (event) => {
      if (event.type === 'plan') for (const step of event.steps) planned.add(step.id);
      // Waits of a cluster that is as it should be are in no plan: they are not worth a line.
      if ('stepId' in event && event.type !== 'step-failed' && !planned.has(event.stepId)) return;
      const line = formatEvent(event, terminal);
      if (line !== undefined) terminal.stderr.write(`${line}\n`);
    },
    close: () => Promise.resolve(),
  };
}

/** The line for an event, or undefined for those that say nothing by themselves. */
export function formatEvent(event: SandbarEvent, terminal: Pick<Terminal, 'hasColours'>): string | undefined {
  switch (event.type) {
    case 'step-finished':
      return `${paint('✔', 'green', terminal)} ${event.text} ${paint(formatMs(event.ms), 'dim', terminal)}`;
    case 'step-failed':
      return `${paint('✖', 'red', terminal)} ${event.stepId}: ${event.message}`;
    case 'step-skipped':
      return `- ${event.stepId} skipped: ${event.blockedBy} failed`;
    case 'phase-started':
      return `• ${event.phase}: ${event.text}`;
    case 'phase-finished':
      return `${paint('✔', 'green', terminal)} ${event.phase}: ${event.text} ${paint(formatMs(event.ms), 'dim', terminal)}`;
    case 'phase-failed':
      return `${paint('✖', 'red', terminal)} ${event.phase}: ${event.message}`;
    case 'notice':
    case 'waiting':
      return `• ${event.text}`;
    case 'warning':
      return `${paint('!', 'yellow', terminal)} ${event.text}${event.hint === undefined ? '' : `; ${event.hint}`}`;
    case 'plan':
    case 'step-started':
    case 'step-progress':
    case 'phase-progress':
      return undefined;
  }
}

/** `0.3 s`, `2 min 5 s` */
export function formatMs(ms: number): string {
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${String(Math.floor(ms / 60_000))} min ${String(Math.round((ms % 60_000) / 1000))} s`;
}
