/** The screen: a row a component while a plan runs (listr2 renders it and runs nothing), a spinner for a single phase. */
import {
  Listr,
  ListrLogger,
  ProcessOutput,
  type DefaultRenderer,
  type ListrDefaultRendererLogLevels,
  type ListrTaskWrapper,
  type SimpleRenderer,
} from 'listr2';
import ora, { type Ora } from 'ora';
import type { SandbarEvent } from '../../model/events.ts';
import { COMPONENTS } from '../../model/names.ts';
import { paint, type Terminal } from '../terminal.ts';
import { formatEvent, formatMs } from './plain.ts';
import type { View } from './view.ts';

const PROGRESS_TICK_MS = 1000;

/** Rows stand in this order, whatever is done first. */
const ROW_ORDER: readonly string[] = ['network', ...COMPONENTS, 'mounts', 'objects'];
const OWNER_WIDTH = Math.max(...ROW_ORDER.map((owner) => owner.length));
/** Before the text: an icon and a space. */
const ICON_WIDTH = 2;

type Wrapper = ListrTaskWrapper<unknown, typeof DefaultRenderer, typeof SimpleRenderer>;

/** A component's row: settled when the last of its steps is. */
type Row = {
  readonly owner: string;
  readonly startedAt: number;
  open: number;
  text: string;
  problem: string | undefined;
  wrapper: Wrapper | undefined;
  readonly done: Promise<void>;
  isSettled: boolean;
  settle: () => void;
};

export function ttyView(terminal: Terminal): View {
  let board: Board | undefined;
  let spinner: Spinner | undefined;
  let currentPhase: string | undefined;
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
    const closing = board;
    if (closing === undefined) return;
    for (const row of closing.rows.values()) {
      if (!row.isSettled) row.problem ??= 'not finished';
      row.settle();
    }
    await closing.rendered;
    if (board !== closing) return;
    board = undefined;
    for (const line of held.splice(0)) terminal.stderr.write(`${line}\n`);
  };
  const startPhase = ({ phase, text }: { readonly phase: string; readonly text: string }): void => {
    endSpinner();
    currentPhase = phase;
    if (board === undefined) spinner = startSpinner(phase, text, terminal);
    // Two things that move overdraw each other: the rows come to a stop first.
    else
      void closeBoard().then(() => {
        if (currentPhase === phase && board === undefined) spinner ??= startSpinner(phase, text, terminal);
      });
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
        showRow(board?.rows.get(event.owner), describeStep(event), terminal);
        break;
      case 'step-progress':
        showRow(board?.rows.get(event.owner), `waiting for ${event.text}`, terminal);
        break;
      case 'step-finished':
        closeStep(board?.rows.get(event.owner), undefined);
        break;
      case 'step-failed':
        closeStep(board?.rows.get(event.owner), event.message);
        break;
      case 'step-skipped':
        closeStep(board?.rows.get(event.owner), `skipped: ${event.blockedBy} failed`);
        break;
      case 'phase-started':
        startPhase(event);
        break;
      case 'phase-progress':
        if (spinner !== undefined) spinner.text = event.text;
        break;
      case 'phase-finished':
      case 'phase-failed':
        currentPhase = undefined;
        endSpinner();
        print(formatEvent(event, terminal) ?? '');
        break;
      case 'notice':
      case 'waiting':
      case 'warning':
        print(formatEvent(event, terminal) ?? '');
        break;
    }
  };
  return {
    emit,
    close: async () => {
      currentPhase = undefined;
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
    const time = ` (${formatMs(performance.now() - startedAt)})`;
    line.text = cut(`${phase}: ${spinner.text}`, time.length, terminal) + time;
  }, PROGRESS_TICK_MS);
  const spinner: Spinner = { line, tick, text };
  return spinner;
}

type Board = { readonly rows: Map<string, Row>; readonly rendered: Promise<unknown> };

/**
 * Rows for the owners of a plan's steps; a later plan of the same run adds its steps to rows that still move, and has
 * new ones for those that have ended.
 */
function addToBoard(
  board: Board | undefined,
  event: SandbarEvent & { readonly type: 'plan' },
  terminal: Terminal,
): Board {
  const rows = new Map([...(board?.rows ?? [])].filter(([, row]) => !row.isSettled));
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
  const ordered = fresh.toSorted((a, b) => ROW_ORDER.indexOf(a.owner) - ROW_ORDER.indexOf(b.owner));
  const previous = board?.rendered ?? Promise.resolve();
  return { rows, rendered: previous.then(() => render(ordered, terminal)) };
}

function createRow(owner: string): Row {
  let settle = (): void => undefined;
  const done = new Promise<void>((resolve) => {
    settle = resolve;
  });
  const startedAt = performance.now();
  const row: Row = {
    ...{ owner, startedAt, open: 1, text: '', problem: undefined, wrapper: undefined, done, isSettled: false },
    settle: () => {
      row.isSettled = true;
      settle();
    },
  };
  return row;
}

function render(rows: readonly Row[], terminal: Terminal): Promise<unknown> {
  const logger = new ListrLogger<ListrDefaultRendererLogLevels>({
    useIcons: false,
    processOutput: new ProcessOutput(terminal.stderr, terminal.stderr),
  });
  const tasks = rows.map((row) => ({
    title: titleOf(row, row.text, terminal),
    task: async (_context: unknown, task: Wrapper): Promise<void> => {
      row.wrapper = task;
      await row.done;
      const time = formatMs(performance.now() - row.startedAt);
      task.title = titleOf(row, row.problem ?? time, terminal);
      if (row.problem !== undefined) throw new Error(row.problem);
    },
  }));
  const list = new Listr(tasks, {
    concurrent: true,
    exitOnError: false,
    // Its own listeners would end the process before anything is cleaned up.
    registerSignalListeners: false,
    rendererOptions: { logger, showErrorMessage: false, formatOutput: 'truncate' as const },
  });
  return list.run();
}

function showRow(row: Row | undefined, text: string, terminal: Terminal): void {
  if (row === undefined || row.isSettled) return;
  row.text = text;
  if (row.wrapper !== undefined) row.wrapper.title = titleOf(row, text, terminal);
}

function closeStep(row: Row | undefined, problem: string | undefined): void {
  if (row === undefined || row.isSettled) return;
  row.open -= 1;
  row.problem ??= problem;
  if (row.open <= 0) row.settle();
}

/** One line, whatever the width: a row that breaks would be overdrawn. */
function titleOf(row: Row, text: string, terminal: Terminal): string {
  const owner = row.owner.padEnd(OWNER_WIDTH);
  return `${owner}  ${paint(cut(text, owner.length + 2, terminal), 'dim', terminal)}`.trimEnd();
}

/** The part of a text that has room in a line beside `taken` columns. */
function cut(text: string, taken: number, terminal: Terminal): string {
  const [line = ''] = text.split('\n', 1);
  const width = Math.max(10, terminal.stderr.columns - ICON_WIDTH - taken - 1);
  return line.length <= width ? line : `${line.slice(0, width - 1)}…`;
}

const DOING: Readonly<Record<string, string>> = {
  create: 'creating',
  update: 'updating',
  start: 'starting',
  remove: 'removing',
  wait: 'waiting for',
};

/** `create volume/pki` → `creating volume pki`; of `create container/agent` the row says whose container. */
function describeStep({ stepId, owner }: { readonly stepId: string; readonly owner: string }): string {
  const [verb = '', subject = ''] = stepId.split(' ');
  const [kind = '', name] = subject.split('/');
  const words = [DOING[verb] ?? verb, kind, ...(name === undefined || name === owner ? [] : [name])];
  return words.join(' ');
}
