/** What was found of one thing that was looked at, with its cause and the command or edit that mends it. */

/** What `doctor --fix` may do: nothing of it loses data, and all of it can be undone. */
export type Repair =
  /** What `up` does with the file and flags that it was given last. */
  { readonly kind: 'up' } | { readonly kind: 'load-image'; readonly imageRef: string };

export type Severity = 'ok' | 'warning' | 'error';

export type Check = {
  /** Kind of the check, stable for scripts: `pod.image`. */
  readonly id: string;
  readonly severity: Severity;
  /** What it is about: `pod shop/web-7d4b9`. */
  readonly subject: string;
  readonly message: string;
  readonly cause?: string;
  /** A command, as it can be pasted, or an edit. */
  readonly fix?: string;
  readonly repair?: Repair;
};

/** Command that shows more of an object. */
export function describeCommand(kind: string, name: string, namespace?: string): string {
  return `sandbar kubectl describe ${kind} ${name}${namespace === undefined ? '' : ` -n ${namespace}`}`;
}

/** The first line of a text that may be long, cut where a line of a terminal is full. */
export function oneLine(text: string, limit = 240): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length <= limit ? line : `${line.slice(0, limit - 1)}…`;
}

/** `1 container`, `3 containers` */
export function counted(count: number, word: string): string {
  return `${String(count)} ${word}${count === 1 ? '' : 's'}`;
}

/** What stands behind the last of "failed to …: failed to …:". */
export function lastPart(message: string): string {
  return message.replace(/^(?:.*?\bfailed(?: to)? [^:]*: )+/s, '');
}
