/** Workbooks and presentations: what is read of them, and what is refused. */
import { describe, expect, test } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { parseDocument } from '../../src/rag/parse/parse-document.ts';
import { buildPptx, buildXlsx, buildZip, pptxEntries, type SheetCell, xlsxEntries, type ZipEntry } from './build-documents.ts';

async function blocksOf(filename: string, content: Buffer): Promise<readonly string[]> {
  const { blocks } = await parseDocument(filename, content);
  return blocks.map(({ text, headingLevel }) => (headingLevel === undefined ? text : `${'#'.repeat(headingLevel)} ${text}`));
}

async function refusal(filename: string, content: Buffer): Promise<string> {
  try {
    await parseDocument(filename, content);
    return 'read';
  } catch (error) {
    if (error instanceof BulkheadError) return error.code;
    throw error;
  }
}

const cell = (xml: string): SheetCell => ({ xml });
const withPart = (entries: readonly ZipEntry[], name: string, content: Buffer | string) =>
  buildZip(entries.map((entry) => (entry.name === name ? { ...entry, content } : entry)));

describe('a workbook', () => {
  test('is read sheet by sheet, each row with the names of its columns', async () => {
    const workbook = buildXlsx([
      {
        name: 'Rents & dues',
        rows: [
          ['Tenant', 'Rent', 'Due'],
          ['Smith <Ltd>', 1_200.5, cell('<c s="1"><v>46352</v></c>')],
          ['Jones', 0.1 + 0.2, cell('<c s="1"/>')],
        ],
      },
      { name: 'Secret', rows: [['never read']], state: 'hidden' },
      { name: 'Loose', rows: [['only one']] },
    ]);
    expect(await blocksOf('a.xlsx', workbook)).toEqual([
      '## Rents & dues',
      'Tenant | Rent | Due',
      'Tenant: Smith <Ltd>\nRent: 1200.5\nDue: 2026-11-26',
      'Tenant: Jones\nRent: 0.3',
      '## Loose',
      'only one',
    ]);
  });

  test('shows every kind of value as people read it', async () => {
    const rows: SheetCell[][] = [
      [1, 'first'],
      [cell('<c t="inlineStr"><is><r><t>in </t></r><r><t>line</t></r><rPh><t>no</t></rPh></is></c>')],
      [cell('<c t="str"><f>A1&amp;"x"</f><v>computed</v></c>'), cell('<c t="b"><v>1</v></c>'), cell('<c t="e"><v>#N/A</v></c>')],
      [
        cell('<c s="2"><v>46352.5625</v></c>'),
        cell('<c s="3"><v>0.5</v></c>'),
        cell('<c s="4"><v>3.5</v></c>'),
        cell('<c><v>1E-3</v></c>'),
      ],
      [cell('<c s="1"><v>99999999999</v></c>'), cell('<c s="1"><v>-1</v></c>')],
      [cell('<c r="C6"><v>3</v></c>'), cell('<c><v>4</v></c>')],
    ];
    expect(await blocksOf('a.xlsx', buildXlsx([{ name: 'All', rows }]))).toEqual([
      '## All',
      '1 | first',
      'in line',
      'computed | TRUE | #N/A',
      '2026-11-26 13:30 | 12:00 | 3.5 | 0.001',
      '99999999999 | -1',
      '3 | 4',
    ]);
  });

  test('that counts days from 1904 is read so', async () => {
    const entries = xlsxEntries([{ name: 'Mac', rows: [[cell('<c s="1"><v>44890</v></c>')]] }]);
    const book = entries.find(({ name }) => name === 'xl/workbook.xml')?.content.toString() ?? '';
    const of1904 = book.replace('<sheets>', '<workbookPr date1904="1"/><sheets>');
    expect(await blocksOf('a.xlsx', withPart(entries, 'xl/workbook.xml', of1904))).toEqual(['## Mac', '2026-11-26']);
  });

  const sheet = (row: string) => withPart(xlsxEntries([{ name: 'x', rows: [] }]), 'xl/worksheets/sheet1.xml', row);
  const cellAt = (reference: string, row = 1) => sheet(`<row r="${row}"><c r="${reference}"><v>1</v></c></row>`);
  const sharedStrings = (count: number) => {
    const strings = Array.from({ length: count }, (_, index) => `<si><t>${(index * 7_919).toString(36)}</t></si>`);
    return withPart(xlsxEntries([{ name: 'x', rows: [['a']] }]), 'xl/sharedStrings.xml', `<sst>${strings.join('')}</sst>`);
  };
  const names = ['n'.repeat(60_000), 'm'.repeat(60_000)];
  test.each([
    ['the last cell there can be', () => cellAt('XFD1048576', 1_048_576), 'read'],
    ['a column beyond it', () => cellAt('XFE1'), 'document_limit'],
    ['a row beyond it', () => cellAt('A1', 1_048_577), 'document_limit'],
    ['a cell of 65,536 characters', () => sheet(`<row><c t="str"><v>${'x'.repeat(65_536)}</v></c></row>`), 'read'],
    ['a cell of 65,537', () => sheet(`<row><c t="str"><v>${'x'.repeat(65_537)}</v></c></row>`), 'document_limit'],
    ['1,000,000 shared strings', () => sharedStrings(1_000_000), 'read'],
    ['1,000,001 shared strings', () => sharedStrings(1_000_001), 'document_limit'],
    [
      'names of columns that multiply',
      () => buildXlsx([{ name: 'x', rows: [names, ...Array.from({ length: 500 }, () => [1, 2])] }]),
      'document_limit',
    ],
    ['65 levels', () => sheet(`${'<row>'.repeat(65)}`), 'document_limit'],
    ['another archive', () => buildPptx([{ title: 'x' }]), 'file_type_mismatch'],
    ['an encrypted container', () => Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1]), 'encrypted_document'],
    ['a workbook of nothing', () => buildXlsx([]), 'empty_file'],
  ])('%s', async (_, build, outcome) => {
    expect(await refusal('a.xlsx', build())).toBe(outcome);
  });
});

describe('a presentation', () => {
  test('is read slide by slide in the order it is shown, title first, notes last', async () => {
    const presentation = buildPptx([
      { title: 'Plan & budget', paragraphs: ['First point', 'second'], notes: 'Say it slowly.' },
      { title: 'Hidden', paragraphs: ['no'], isHidden: true },
      {
        table: [
          ['City', 'Rent'],
          ['Oslo', '1,200'],
        ],
        more: '<mc:AlternateContent><mc:Choice><p:sp><p:txBody><a:p><a:r><a:t>once</a:t></a:r><a:br/><a:r><a:t>more</a:t></a:r></a:p></p:txBody></p:sp></mc:Choice><mc:Fallback><p:sp><p:txBody><a:p><a:r><a:t>once</a:t></a:r></a:p></p:txBody></p:sp></mc:Fallback></mc:AlternateContent>',
      },
    ]);
    expect(await blocksOf('a.pptx', presentation)).toEqual([
      '## Plan & budget',
      'First point\nsecond',
      'Say it slowly.',
      'City | Rent',
      'Oslo | 1,200',
      'once\nmore',
    ]);
  });

  test('cannot point outside itself', async () => {
    const entries = pptxEntries([{ title: 'One' }]);
    const outside = entries
      .find(({ name }) => name === 'ppt/_rels/presentation.xml.rels')
      ?.content.toString()
      .replace('Target="slides/slide1.xml"', 'Target="../../../etc/passwd"');
    expect(await refusal('a.pptx', withPart(entries, 'ppt/_rels/presentation.xml.rels', outside ?? ''))).toBe('empty_file');
  });

  test.each([
    ['another archive', () => buildXlsx([{ name: 'x', rows: [['a']] }]), 'file_type_mismatch'],
    [
      'a bomb',
      () => buildZip([...pptxEntries([{ title: 'x' }]), { name: 'ppt/media/a.xml', content: Buffer.alloc(101 * 1_024 ** 2) }]),
      'archive_limit',
    ],
    ['an encrypted container', () => Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1]), 'encrypted_document'],
  ])('%s', async (_, build, outcome) => {
    expect(await refusal('a.pptx', build())).toBe(outcome);
  });
});

describe('XML that expands or reaches out is refused in both', () => {
  const laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>';
  const external = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>';
  test.each([
    ['a.xlsx', 'xl/sharedStrings.xml'],
    ['a.xlsx', 'xl/workbook.xml'],
    ['a.xlsx', 'xl/worksheets/sheet1.xml'],
    ['a.pptx', 'ppt/presentation.xml'],
    ['a.pptx', 'ppt/slides/slide1.xml'],
    ['a.pptx', 'ppt/_rels/presentation.xml.rels'],
  ])('%s, %s', async (filename, part) => {
    const entries = filename === 'a.xlsx' ? xlsxEntries([{ name: 'x', rows: [['a']] }]) : pptxEntries([{ title: 'x' }]);
    for (const xml of [laughs, external]) expect(await refusal(filename, withPart(entries, part, xml))).toBe('document_limit');
  });
});
