import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { cleanText } from './clean-text.ts';
import { documentLimits, type TextBlock } from './document.ts';
import { OfficePackage } from './office-package.ts';
import { isDateFormat, numberText, serialText } from './spreadsheet-values.ts';
import { readXml, type XmlElement, type XmlHandler } from './xml-safety.ts';

const main = 'xl/workbook.xml';

/**
 * Workbooks (ECMA-376 part 1, 18): each visible sheet under its name, row by row. Where the first row holds names alone, a row reads
 * `name: value`, so that a chunk that starts in the middle still says what its numbers mean. Formulas are not computed: their stored values are read.
 */
export function parseXlsx(bytes: Uint8Array): TextBlock[] {
  const workbook = new OfficePackage(bytes, { folder: 'xl', main });
  const { sheets, countsFrom1904 } = readWorkbook(workbook);
  const relations = [...workbook.relationsOf(main).values()];
  const partOf = (kind: string) => workbook.part(relations.find((relation) => relation.kind === kind)?.part ?? '');
  const strings = readSharedStrings(partOf('sharedStrings'));
  const values: CellValues = { strings, dateStyles: readDateStyles(partOf('styles')), countsFrom1904 };
  const output = new BoundedBlocks();
  for (const { name, part } of sheets) {
    const sheet = workbook.part(part);
    if (sheet === undefined) continue;
    output.add({ text: cleanText(name), headingLevel: 2 });
    readXml(sheet, new SheetReader(values, output));
  }
  return output.blocks;
}

interface CellValues {
  readonly strings: readonly string[];
  /** Of each cell style: whether its numbers are dates. */
  readonly dateStyles: readonly boolean[];
  readonly countsFrom1904: boolean;
}

interface Workbook {
  readonly sheets: readonly { readonly name: string; readonly part: string }[];
  readonly countsFrom1904: boolean;
}

function readWorkbook(workbook: OfficePackage): Workbook {
  const relations = workbook.relationsOf(main);
  const sheets: { name: string; part: string }[] = [];
  let countsFrom1904 = false;
  readXml(workbook.part(main) ?? Buffer.alloc(0), {
    open(element) {
      if (element.name === 'workbookPr') countsFrom1904 = /^(?:1|true)$/.test(element.attribute('date1904') ?? '');
      const isVisible = (element.attribute('state') ?? 'visible') === 'visible';
      const relation = element.name === 'sheet' && isVisible ? relations.get(element.attribute('r:id') ?? '') : undefined;
      if (relation?.kind === 'worksheet') sheets.push({ name: element.attribute('name') ?? '', part: relation.part });
    },
    close() {},
    text() {},
  });
  return { sheets, countsFrom1904 };
}

/** Phonetic readings (`rPh`) are another writing of the same text, and left out. */
function readSharedStrings(part: Buffer | undefined): readonly string[] {
  const strings: string[] = [];
  let text = '';
  let isText = false;
  let phonetic = 0;
  readXml(part ?? Buffer.alloc(0), {
    open({ name }) {
      if (name === 'si') text = '';
      else if (name === 'rPh') phonetic++;
      else if (name === 't') isText = phonetic === 0;
    },
    close(name) {
      if (name === 't') isText = false;
      else if (name === 'rPh') phonetic--;
      else if (name === 'si') strings.push(text);
      const { sheetSharedStringsMax } = documentLimits;
      if (strings.length > sheetSharedStringsMax) throw limit(`a workbook has at most ${sheetSharedStringsMax} shared strings`);
    },
    text(more) {
      if (isText) text = bounded(text + more);
    },
  });
  return strings;
}

function readDateStyles(part: Buffer | undefined): readonly boolean[] {
  const codes = new Map<number, string>();
  const styles: boolean[] = [];
  let isCellStyle = false;
  readXml(part ?? Buffer.alloc(0), {
    open(element) {
      const formatId = Number(element.attribute('numFmtId') ?? 0);
      if (element.name === 'numFmt') codes.set(formatId, element.attribute('formatCode') ?? '');
      else if (element.name === 'cellXfs') isCellStyle = true;
      else if (element.name === 'xf' && isCellStyle) styles.push(isDateFormat(formatId, codes.get(formatId)));
    },
    close(name) {
      if (name === 'cellXfs') isCellStyle = false;
    },
    text() {},
  });
  return styles;
}

/** Refuses text beyond a document's limit while it grows: repeated column names could multiply it. */
class BoundedBlocks {
  readonly blocks: TextBlock[] = [];
  #characters = 0;

  add(block: TextBlock): void {
    if (block.text === '') return;
    this.#characters += block.text.length;
    const { textCharactersMax } = documentLimits;
    if (this.#characters > textCharactersMax)
      throw limit(`a document has at most ${textCharactersMax} characters of text; this one has more`);
    this.blocks.push(block);
  }
}

class SheetReader implements XmlHandler {
  readonly #values: CellValues;
  readonly #output: BoundedBlocks;
  #header: ReadonlyMap<number, string> | undefined;
  #hasRows = false;
  #row = new Map<number, string>();
  #isRowOfNames = true;
  #column = -1;
  #type = 'n';
  #style = 0;
  #text = '';
  #reads = false;
  #phonetic = 0;

  constructor(values: CellValues, output: BoundedBlocks) {
    this.#values = values;
    this.#output = output;
  }

  open(element: XmlElement): void {
    if (element.name === 'row') this.#startRow(element);
    else if (element.name === 'c') this.#startCell(element);
    else if (element.name === 'rPh') this.#phonetic++;
    else if (element.name === 'v' || element.name === 't') this.#reads = this.#phonetic === 0;
  }

  close(name: string): void {
    if (name === 'v' || name === 't') this.#reads = false;
    else if (name === 'rPh') this.#phonetic--;
    else if (name === 'c') this.#endCell();
    else if (name === 'row') this.#endRow();
  }

  text(text: string): void {
    if (this.#reads) this.#text = bounded(this.#text + text);
  }

  #startRow(element: XmlElement): void {
    const { sheetRowsMax } = documentLimits;
    if (Number(element.attribute('r') ?? 0) > sheetRowsMax) throw limit(`a sheet has at most ${sheetRowsMax} rows`);
    this.#row = new Map();
    this.#isRowOfNames = true;
    this.#column = -1;
  }

  #startCell(element: XmlElement): void {
    const { sheetColumnsMax } = documentLimits;
    const letters = /^[A-Z]{1,4}/.exec(element.attribute('r') ?? '')?.[0];
    this.#column = letters === undefined ? this.#column + 1 : columnOf(letters);
    if (this.#column >= sheetColumnsMax) throw limit(`a sheet has at most ${sheetColumnsMax} columns`);
    this.#type = element.attribute('t') ?? 'n';
    this.#style = Number(element.attribute('s') ?? 0);
    this.#text = '';
  }

  #endCell(): void {
    const value = cleanText(this.#valueText()).trim();
    if (value === '') return;
    this.#row.set(this.#column, value);
    if (!/^(?:s|str|inlineStr)$/.test(this.#type)) this.#isRowOfNames = false;
  }

  #valueText(): string {
    const { strings, dateStyles, countsFrom1904 } = this.#values;
    switch (this.#type) {
      case 's':
        return strings[Number(this.#text)] ?? '';
      case 'b':
        return this.#text === '1' ? 'TRUE' : 'FALSE';
      case 'n':
        return dateStyles[this.#style] === true ? serialText(this.#text, countsFrom1904) : numberText(this.#text);
      default:
        return this.#text;
    }
  }

  #endRow(): void {
    if (this.#row.size === 0) return;
    const isFirst = !this.#hasRows;
    this.#hasRows = true;
    if (isFirst && this.#isRowOfNames && this.#row.size > 1) {
      this.#header = this.#row;
      this.#output.add({ text: [...this.#row.values()].join(' | ') });
      return;
    }
    const cells = [...this.#row].map(([column, value]) => {
      const name = this.#header?.get(column);
      return name === undefined ? value : `${name}: ${value}`;
    });
    this.#output.add({ text: cells.join(this.#header === undefined ? ' | ' : '\n') });
  }
}

/** `A` is 0, `XFD` 16,383. */
function columnOf(letters: string): number {
  let column = 0;
  for (const letter of letters) column = column * 26 + letter.charCodeAt(0) - 64;
  return column - 1;
}

function bounded(text: string): string {
  const { cellCharactersMax } = documentLimits;
  if (text.length > cellCharactersMax) throw limit(`a cell has at most ${cellCharactersMax} characters; one is longer`);
  return text;
}

function limit(message: string): BulkheadError {
  return new BulkheadError('document_limit', message);
}
