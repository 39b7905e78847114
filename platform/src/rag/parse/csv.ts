import { CsvError, parse } from 'csv-parse/sync';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { cleanText } from './clean-text.ts';
import { documentLimits, type TextBlock } from './document.ts';

/** One block a record, `column: value` per line, so that a chunk that starts mid-table still says what its numbers mean. */
export function parseCsv(text: string, delimiter: ',' | '\t'): TextBlock[] {
  const [header = [], ...records] = readRecords(text, delimiter);
  assertColumns(header);
  const blocks: TextBlock[] = records.length === 0 ? [{ text: header.join(', ') }] : [];
  for (const record of records) {
    assertColumns(record);
    const lines = record.map((cell, index) => lineOf(header[index], cell)).filter((line) => line !== '');
    if (lines.length > 0) blocks.push({ text: lines.join('\n') });
  }
  return blocks;
}

function readRecords(text: string, delimiter: string): string[][] {
  try {
    return parse(cleanText(text), {
      bom: true,
      delimiter,
      relax_column_count: true,
      relax_quotes: true,
      skip_empty_lines: true,
      max_record_size: documentLimits.csvColumnsMax * documentLimits.csvCellBytesMax,
      on_record: (record: string[]) => {
        assertCells(record);
        return record;
      },
    });
  } catch (error) {
    if (error instanceof BulkheadError) throw error;
    if (error instanceof CsvError && error.code === 'CSV_MAX_RECORD_SIZE') throw cellTooLong();
    throw new BulkheadError('parse_failed', 'the CSV could not be read: a quoted field does not end', { cause: error });
  }
}

function assertColumns(record: readonly string[]): void {
  if (record.length <= documentLimits.csvColumnsMax) return;
  throw new BulkheadError('document_limit', `a CSV record has at most ${documentLimits.csvColumnsMax} columns; one has ${record.length}`);
}

function assertCells(record: readonly string[]): void {
  if (record.some((cell) => cell.length > documentLimits.csvCellBytesMax)) throw cellTooLong();
}

function cellTooLong(): BulkheadError {
  return new BulkheadError('document_limit', `a CSV cell has at most ${documentLimits.csvCellBytesMax} characters; one is longer`);
}

function lineOf(column: string | undefined, cell: string): string {
  if (cell.trim() === '') return '';
  return column === undefined || column.trim() === '' ? cell : `${column.trim()}: ${cell}`;
}
