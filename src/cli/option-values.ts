/** What options hold, read from the command line. */
import { InvalidArgumentError } from 'commander';

/** Of an option that may be given several times. */
export function repeated(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}

/** A whole number, or an error of the command line. */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`"${text}" is not a whole number`);
  return Number(text);
}

/** Seconds or minutes, `90`, `90s` or `2m`, as milliseconds; else an error of the command line. */
export function seconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(s|m)?$/.exec(text);
  if (match === null) throw new InvalidArgumentError(`"${text}" is not a duration such as 90, 90s or 2m`);
  return Number(match[1]) * (match[2] === 'm' ? 60_000 : 1000);
}
