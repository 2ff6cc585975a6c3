/** The screen: a row a component while a plan runs (listr2 renders it and runs nothing), a spinner for a single phase. */
import {
  Listr,
  ListrLogger,
  PRESET_TIMER,
  ProcessOutput,
  type DefaultRenderer,
  type ListrTaskWrapper,
  type SimpleRenderer,
} from 'listr2';
import ora, { type Ora } from 'ora';
import type { SandbarEvent } from '../../model/events.ts';
import type { Terminal } from '../terminal.ts';
import { formatEvent, formatMs } from './plain.ts';
import type { View } from './view.ts';

const PROGRESS_TICK_MS = 1000;

type Wrapper = ListrTaskWrapper<unknown, typeof DefaultRenderer, typeof SimpleRenderer>;

/** A component's row: settled when the last of its steps is. */
type Row = {
  readonly owner: string;
  open: number;
  text: string;
  failure: string | undefined;
  wrapper: Wrapper | undefined;
  readonly done: Promise<void>;
  settle: () => void;
};

export function ttyView(terminal: Terminal): View {
  let board: Board | undefined;
  let spinner: Spinner | undefined;
  const held: string[] = [];

  const print = (line: string): void => {
    // Lines between moving ones would be overdrawn: they follow when the rows stand still.
    if (board !== undefined) held.push(line);
    else if (spinner === undefined) terminal.stderr.write(`${line}\n`);
    else {
      spinner.line.clear();
      terminal.stderr.write(`${line}\n`);
      spinner.line.render();
    }
  };
  const closeBoard = async (): Promise<void> => {
    if (board === undefined) return;
    for (const row of board.rows.values()) row.settle();
    await board.rendered;
    board = undefined;
    for (const line of held.splice(0)) terminal.stderr.write(`${line}\n`);
  };
  const endSpinner = (): void => {
    if (spinner === undefined) return;
    clearInterval(spinner.tick);
    spinner.line.stop();
    spinner = undefined;
  };

  const emit = (event: SandbarEvent): void => {
    switch (event.type) {
      case 'plan':
        board = addToBoard(board, event, terminal);
        break;
      case 'step-started':
        showRow(board?.rows.get(event.owner), event.text);
        break;
      case 'step-finished':
        closeStep(board?.rows.get(event.owner), undefined);
        break;
      case 'step-failed':
        closeStep(board?.rows.get(event.owner), event.message);
        break;
      case 'step-skipped':
        closeStep(board?.rows.get(event.owner), `${event.blockedBy} failed`);
        break;
      case 'phase-started':
        endSpinner();
        spinner = startSpinner(event.phase, event.text, terminal);
        break;
      case 'phase-progress':
        if (spinner !== undefined) spinner.text = event.text;
        break;
      case 'phase-finished':
      case 'phase-failed':
        endSpinner();
        print(formatEvent(event, terminal) ?? '');
        break;
      case 'notice':
      case 'warning':
        print(formatEvent(event, terminal) ?? '');
        break;
    }
  };
  return {
    emit,
    close: async () => {
      endSpinner();
      await closeBoard();
    },
  };
}

type Spinner = { readonly line: Ora; readonly tick: NodeJS.Timeout; text: string };

/** A line that says what goes on and for how long. */
function startSpinner(phase: string, text: string, terminal: Terminal): Spinner {
  const startedAt = performance.now();
  const line = ora({ text: `${phase}: ${text}`, stream: terminal.stderr, discardStdin: false }).start();
  const tick = setInterval(() => {
    line.text = `${phase}: ${spinner.text} (${formatMs(performance.now() - startedAt)})`;
  }, PROGRESS_TICK_MS);
  const spinner: Spinner = { line, tick, text };
  return spinner;
}

type Board = { readonly rows: Map<string, Row>; readonly rendered: Promise<unknown> };

/** Rows for the owners of a plan's steps; a later plan of the same run adds its steps to rows that are there. */
function addToBoard(
  board: Board | undefined,
  event: SandbarEvent & { readonly type: 'plan' },
  terminal: Terminal,
): Board {
  const rows = board?.rows ?? new Map<string, Row>();
  const fresh: Row[] = [];
  for (const { owner } of event.steps) {
    const row = rows.get(owner);
    if (row !== undefined) {
      row.open += 1;
      continue;
    }
    const added = createRow(owner);
    rows.set(owner, added);
    fresh.push(added);
  }
  if (board !== undefined && fresh.length === 0) return board;
  const previous = board?.rendered ?? Promise.resolve();
  return { rows, rendered: previous.then(() => render(fresh, terminal)) };
}

function createRow(owner: string): Row {
  let settle = (): void => undefined;
  const done = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { owner, open: 1, text: '', failure: undefined, wrapper: undefined, done, settle };
}

function render(rows: readonly Row[], terminal: Terminal): Promise<unknown> {
  const logger = new ListrLogger({
    useIcons: false,
    processOutput: new ProcessOutput(terminal.stderr, terminal.stderr),
  });
  const tasks = rows.map((row) => ({
    title: row.owner,
    task: async (_context: unknown, task: Wrapper): Promise<void> => {
      row.wrapper = task;
      if (row.text !== '') task.output = row.text;
      await row.done;
      if (row.failure !== undefined) throw new Error(row.failure);
    },
  }));
  const list = new Listr(tasks, {
    concurrent: true,
    exitOnError: false,
    // Its own listeners would end the process before anything is cleaned up.
    registerSignalListeners: false,
    rendererOptions: { logger, timer: PRESET_TIMER },
  });
  return list.run();
}

function showRow(row: Row | undefined, text: string): void {
  if (row === undefined) return;
  row.text = text;
  if (row.wrapper !== undefined) row.wrapper.output = text;
}

function closeStep(row: Row | undefined, failure: string | undefined): void {
  if (row === undefined) return;
  row.open -= 1;
  row.failure ??= failure;
  if (row.open <= 0) row.settle();
}
