/** What parsing yields: text in reading order with its headings, nothing else. No markup, no scripts, no links to follow. */
export interface ParsedDocument {
  readonly format: DocumentFormat;
  readonly blocks: readonly TextBlock[];
}

export interface TextBlock {
  readonly text: string;
  /** 1 to 6 for a heading; absent for running text. */
  readonly headingLevel?: number | undefined;
}

export type DocumentFormat = 'text' | 'markdown' | 'html' | 'csv' | 'json' | 'pdf' | 'docx' | 'xlsx' | 'pptx';

/**
 * Ceilings of one document, beside the memory and time of the worker. Declared sizes are never believed: bytes are counted while
 * they are inflated.
 */
export const documentLimits = {
  archiveEntriesMax: 1_000,
  archiveInflatedBytesMax: 100 * 1_024 * 1_024,
  /** Inflated to stored bytes of the whole archive; below `archiveRatioFloorBytes` a small file may compress better than this. */
  archiveRatioMax: 100,
  archiveRatioFloorBytes: 1_024 * 1_024,
  xmlDepthMax: 64,
  jsonDepthMax: 64,
  pdfPagesMax: 2_000,
  pdfStreamInflatedBytesMax: 100 * 1_024 * 1_024,
  csvColumnsMax: 1_000,
  csvCellBytesMax: 64 * 1_024,
  sheetColumnsMax: 16_384,
  sheetRowsMax: 1_048_576,
  sheetSharedStringsMax: 1_000_000,
  /** Twice what Excel itself can hold. */
  cellCharactersMax: 64 * 1_024,
  textCharactersMax: 50_000_000,
} as const;
