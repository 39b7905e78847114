/** What commands print: JSON for programs, aligned tables for people. */
import type { Command } from 'commander';

export interface OutputOptions {
  readonly json?: boolean | undefined;
}

/** Adds `--json` and the example that every command's help ends with. */
export function withOutput(command: Command, example: string): Command {
  return command.option('--json', 'print JSON').addHelpText('after', `\nExample:\n  $ ${example}\n`);
}

export function print(options: OutputOptions, value: unknown, human: () => string): void {
  process.stdout.write(`${options.json ? JSON.stringify(value, null, 2) : human()}\n`);
}

/** A left-aligned table; columns of numbers are right-aligned. */
export function table(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const texts = rows.map((row) => row.map(printable));
  const widths = headings.map((heading, column) => Math.max(heading.length, ...texts.map((row) => row[column]?.length ?? 0)));
  const numeric = headings.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (numeric[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(headings), line(widths.map((width) => '-'.repeat(width))), ...texts.map(line)].join('\n');
}

/** Names come from outside: nothing in them may drive the terminal. */
export function printable(cell: string | number): string {
  let text = '';
  for (const character of String(cell)) {
    const code = character.codePointAt(0) ?? 0;
    text += code < 0x20 || (code >= 0x7f && code <= 0x9f) ? `\\x${code.toString(16).padStart(2, '0')}` : character;
  }
  return text;
}
