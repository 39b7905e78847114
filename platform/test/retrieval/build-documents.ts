/** Builds small PDF, DOCX and ZIP files byte by byte, so that tests can also build broken and hostile ones. */
import { crc32, deflateRawSync } from 'node:zlib';

export interface ZipEntry {
  readonly name: string;
  readonly content: Buffer | string;
  /** What the headers claim, where that differs from the truth. */
  readonly claims?: { readonly inflatedBytes?: number; readonly flags?: number; readonly unixMode?: number };
  /** Points at another entry's bytes instead of its own, as overlapping-file bombs do. */
  readonly sharesContentOf?: string;
}

export function buildZip(entries: readonly ZipEntry[]): Buffer {
  const files: Buffer[] = [];
  const directory: Buffer[] = [];
  const offsets = new Map<string, number>();
  let offset = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name, 'utf8');
    const content = Buffer.from(entry.content);
    const deflated = deflateRawSync(content);
    const facts = Buffer.alloc(26);
    facts.writeUInt16LE(20, 0);
    facts.writeUInt16LE(entry.claims?.flags ?? 0x0800, 2);
    facts.writeUInt16LE(8, 4);
    facts.writeUInt32LE(crc32(content), 10);
    facts.writeUInt32LE(deflated.length, 14);
    facts.writeUInt32LE(entry.claims?.inflatedBytes ?? content.length, 18);
    facts.writeUInt16LE(name.length, 22);
    const record = Buffer.alloc(46);
    record.writeUInt32LE(0x02014b50, 0);
    record.writeUInt16LE(0x0314, 4);
    facts.copy(record, 6);
    record.writeUInt32LE(((entry.claims?.unixMode ?? 0o100644) << 16) >>> 0, 38);
    record.writeUInt32LE(offsets.get(entry.sharesContentOf ?? '') ?? offset, 42);
    directory.push(record, name);
    if (entry.sharesContentOf !== undefined) continue;
    offsets.set(entry.name, offset);
    const local = Buffer.concat([Buffer.from([0x50, 0x4b, 3, 4]), facts, name, deflated]);
    files.push(local);
    offset += local.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(listing.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...files, listing, end]);
}

export interface DocxParagraph {
  readonly text: string;
  readonly headingLevel?: 1 | 2 | 3;
}

export function docxEntries(paragraphs: readonly DocxParagraph[]): ZipEntry[] {
  const body = paragraphs
    .map(({ text, headingLevel }) => {
      const style = headingLevel === undefined ? '' : `<w:pPr><w:pStyle w:val="Heading${headingLevel}"/></w:pPr>`;
      return `<w:p>${style}<w:r><w:t xml:space="preserve">${escapeXml(text)}</w:t></w:r></w:p>`;
    })
    .join('');
  return [
    {
      name: '[Content_Types].xml',
      content:
        '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
    },
    {
      name: '_rels/.rels',
      content:
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
    },
    {
      name: 'word/document.xml',
      content: `<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>${body}</w:body></w:document>`,
    },
    {
      name: 'word/styles.xml',
      content: `<?xml version="1.0"?><w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">${[1, 2, 3]
        .map((level) => `<w:style w:type="paragraph" w:styleId="Heading${level}"><w:name w:val="heading ${level}"/></w:style>`)
        .join('')}</w:styles>`,
    },
  ];
}

export function buildDocx(paragraphs: readonly DocxParagraph[]): Buffer {
  return buildZip(docxEntries(paragraphs));
}

const relationshipType = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships';
const packageRelations = 'http://schemas.openxmlformats.org/package/2006/relationships';

function relationsPart(relations: readonly (readonly [id: string, kind: string, target: string])[]): string {
  const entries = relations.map(([id, kind, target]) => `<Relationship Id="${id}" Type="${relationshipType}/${kind}" Target="${target}"/>`);
  return `<?xml version="1.0"?><Relationships xmlns="${packageRelations}">${entries.join('')}</Relationships>`;
}

/** A cell by the XML of its `c` element, or a text (shared), a number. */
export type SheetCell = string | number | { readonly xml: string };

export interface Sheet {
  readonly name: string;
  readonly rows: readonly (readonly SheetCell[])[];
  readonly state?: 'hidden';
}

/** Cell styles: 0 a number, 1 a date, 2 a date and time of the workbook's own, 3 a time, 4 a percentage in words. */
const styles =
  '<styleSheet><numFmts><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd hh:mm"/><numFmt numFmtId="165" formatCode="0.0&quot; days&quot;"/></numFmts>' +
  '<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs>' +
  '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="20"/><xf numFmtId="165"/></cellXfs></styleSheet>';

export function xlsxEntries(sheets: readonly Sheet[]): ZipEntry[] {
  const strings: string[] = [];
  const shared = (text: string): number => strings.push(text) - 1;
  const cellOf = (cell: SheetCell): string => {
    if (typeof cell === 'number') return `<c><v>${cell}</v></c>`;
    return typeof cell === 'string' ? `<c t="s"><v>${shared(cell)}</v></c>` : cell.xml;
  };
  const worksheets = sheets.map(({ rows }, index) => ({
    name: `xl/worksheets/sheet${index + 1}.xml`,
    content: `<worksheet><sheetData>${rows.map((row) => `<row>${row.map(cellOf).join('')}</row>`).join('')}</sheetData></worksheet>`,
  }));
  const listed = sheets.map(
    ({ name, state = 'visible' }, index) =>
      `<sheet name="${escapeXml(name)}" sheetId="${index + 1}" state="${state}" r:id="rId${index + 1}"/>`,
  );
  return [
    { name: '[Content_Types].xml', content: '<Types/>' },
    { name: 'xl/workbook.xml', content: `<?xml version="1.0"?><workbook><sheets>${listed.join('')}</sheets></workbook>` },
    {
      name: 'xl/_rels/workbook.xml.rels',
      content: relationsPart([
        ...sheets.map((_, index) => [`rId${index + 1}`, 'worksheet', `worksheets/sheet${index + 1}.xml`] as const),
        ['rIdS', 'sharedStrings', '/xl/sharedStrings.xml'],
        ['rIdF', 'styles', 'styles.xml'],
      ]),
    },
    { name: 'xl/styles.xml', content: styles },
    { name: 'xl/sharedStrings.xml', content: `<sst>${strings.map((text) => `<si><t>${escapeXml(text)}</t></si>`).join('')}</sst>` },
    ...worksheets,
  ];
}

export function buildXlsx(sheets: readonly Sheet[]): Buffer {
  return buildZip(xlsxEntries(sheets));
}

export interface Slide {
  readonly title?: string;
  readonly paragraphs?: readonly string[];
  readonly table?: readonly (readonly string[])[];
  readonly notes?: string;
  readonly isHidden?: boolean;
  /** More XML inside the shape tree. */
  readonly more?: string;
}

const paragraph = (text: string): string => `<a:p><a:r><a:t>${escapeXml(text)}</a:t></a:r></a:p>`;

function shape(placeholder: string | undefined, paragraphs: readonly string[]): string {
  const ph = placeholder === undefined ? '' : `<p:ph type="${placeholder}"/>`;
  return `<p:sp><p:nvSpPr><p:nvPr>${ph}</p:nvPr></p:nvSpPr><p:txBody>${paragraphs.map(paragraph).join('')}</p:txBody></p:sp>`;
}

function slideXml({ title, paragraphs = [], table, isHidden = false, more = '' }: Slide): string {
  const rows = table?.map((row) => `<a:tr>${row.map((cell) => `<a:tc><a:txBody>${paragraph(cell)}</a:txBody></a:tc>`).join('')}</a:tr>`);
  const shapes = [
    shape('sldNum', ['17']),
    ...(paragraphs.length === 0 ? [] : [shape(undefined, paragraphs)]),
    ...(title === undefined ? [] : [shape('ctrTitle', [title])]),
    ...(rows === undefined ? [] : [`<p:graphicFrame><a:tbl>${rows.join('')}</a:tbl></p:graphicFrame>`]),
  ];
  return `<?xml version="1.0"?><p:sld${isHidden ? ' show="0"' : ''}><p:cSld><p:spTree>${shapes.join('')}${more}</p:spTree></p:cSld></p:sld>`;
}

/** Slides are stored in the opposite order: only the relationships say which comes first. */
export function pptxEntries(slides: readonly Slide[]): ZipEntry[] {
  const numberOf = (index: number): number => slides.length - index;
  const ids = slides.map((_, index) => `<p:sldId id="${256 + index}" r:id="rId${index}"/>`);
  const entries = slides.flatMap((slide, index): ZipEntry[] => {
    const name = `slide${numberOf(index)}.xml`;
    const own = { name: `ppt/slides/${name}`, content: slideXml(slide) };
    if (slide.notes === undefined) return [own];
    return [
      own,
      { name: `ppt/slides/_rels/${name}.rels`, content: relationsPart([['rId1', 'notesSlide', `../notesSlides/notes-${name}`]]) },
      { name: `ppt/notesSlides/notes-${name}`, content: `<p:notes>${shape('body', [slide.notes])}${shape('sldNum', ['17'])}</p:notes>` },
    ];
  });
  return [
    { name: '[Content_Types].xml', content: '<Types/>' },
    { name: 'ppt/presentation.xml', content: `<p:presentation><p:sldIdLst>${ids.join('')}</p:sldIdLst></p:presentation>` },
    {
      name: 'ppt/_rels/presentation.xml.rels',
      content: relationsPart(slides.map((_, index) => [`rId${index}`, 'slide', `slides/slide${numberOf(index)}.xml`] as const)),
    },
    ...entries.toReversed(),
  ];
}

export function buildPptx(slides: readonly Slide[]): Buffer {
  return buildZip(pptxEntries(slides));
}

export interface PdfLine {
  readonly text: string;
  readonly size?: number;
  /** Leave a gap above, so that a paragraph starts. */
  readonly startsParagraph?: boolean;
}

/** A PDF of one-line text operators in Helvetica; ASCII text. */
export function buildPdf(pages: readonly (readonly PdfLine[])[]): Buffer {
  const pageNumbers = pages.map((_, index) => 4 + index * 2);
  const objects = [
    '<< /Type /Catalog /Pages 2 0 R >>',
    `<< /Type /Pages /Kids [${pageNumbers.map((number) => `${number} 0 R`).join(' ')}] /Count ${pages.length} >>`,
    '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
    ...pages.flatMap((lines, index) => [
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> /Contents ${5 + index * 2} 0 R >>`,
      streamObject(Buffer.from(drawLines(lines))),
    ]),
  ];
  return buildPdfOf(objects);
}

/** A PDF of these objects, numbered from 1; object 1 is the catalogue. */
export function buildPdfOf(objects: readonly (string | Buffer)[], trailerExtra = ''): Buffer {
  const parts: Buffer[] = [Buffer.from('%PDF-1.4\n')];
  const offsets: number[] = [];
  let offset = parts[0]?.length ?? 0;
  for (const [index, object] of objects.entries()) {
    const written = Buffer.concat([Buffer.from(`${index + 1} 0 obj\n`), Buffer.from(object), Buffer.from('\nendobj\n')]);
    offsets.push(offset);
    offset += written.length;
    parts.push(written);
  }
  const table = offsets.map((value) => `${String(value).padStart(10, '0')} 00000 n \n`).join('');
  parts.push(
    Buffer.from(
      `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}trailer << /Size ${objects.length + 1} /Root 1 0 R ${trailerExtra} >>\nstartxref\n${offset}\n%%EOF\n`,
    ),
  );
  return Buffer.concat(parts);
}

export function streamObject(content: Buffer, dictionary = ''): Buffer {
  return Buffer.concat([Buffer.from(`<< /Length ${content.length} ${dictionary} >>\nstream\n`), content, Buffer.from('\nendstream')]);
}

function drawLines(lines: readonly PdfLine[]): string {
  let y = 800;
  const operators = lines.map(({ text, size = 11, startsParagraph = false }) => {
    y -= size * (startsParagraph ? 2.6 : 1.3);
    return `BT /F1 ${size} Tf 50 ${y.toFixed(1)} Td (${text.replace(/[\\()]/g, '\\$&')}) Tj ET`;
  });
  return operators.join('\n');
}

function escapeXml(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;');
}
