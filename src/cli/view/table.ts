import { stripVTControlCharacters } from 'node:util';

/** Columns as wide as their widest cell, two spaces apart; colours count for nothing. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 0, visibleWidth(cell))));
  }
  const pad = (cell: string, index: number): string => cell + ' '.repeat((widths[index] ?? 0) - visibleWidth(cell));
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n');
}

function visibleWidth(text: string): number {
  return stripVTControlCharacters(text).length;
}
