import { cleanText, collapseBlanks } from './clean-text.ts';
import type { TextBlock } from './document.ts';
import { OfficePackage } from './office-package.ts';
import { readXml, type XmlElement, type XmlHandler } from './xml-safety.ts';

const main = 'ppt/presentation.xml';

/**
 * Presentations (ECMA-376 part 1, 19): slides in the order they are shown, each under its title, tables row by row, then the speaker's notes.
 * Hidden slides, footers and slide numbers are left out.
 */
export function parsePptx(bytes: Uint8Array): TextBlock[] {
  const presentation = new OfficePackage(bytes, { folder: 'ppt', main });
  const blocks: TextBlock[] = [];
  for (const slideName of slidesOf(presentation)) {
    const slide = presentation.part(slideName);
    if (slide === undefined) continue;
    const reader = new SlideReader();
    readXml(slide, reader);
    if (reader.isHidden) continue;
    blocks.push(...reader.titles.map((text) => ({ text, headingLevel: 2 })), ...reader.texts.map((text) => ({ text })));
    blocks.push(...notesOf(presentation, slideName).map((text) => ({ text })));
  }
  return blocks;
}

function slidesOf(presentation: OfficePackage): readonly string[] {
  const relations = presentation.relationsOf(main);
  const names: string[] = [];
  readXml(presentation.part(main) ?? Buffer.alloc(0), {
    open(element) {
      const relation = element.name === 'sldId' ? relations.get(element.attribute('r:id') ?? '') : undefined;
      if (relation?.kind === 'slide' && !names.includes(relation.part)) names.push(relation.part);
    },
    close() {},
    text() {},
  });
  return names;
}

function notesOf(presentation: OfficePackage, slideName: string): readonly string[] {
  const relation = [...presentation.relationsOf(slideName).values()].find(({ kind }) => kind === 'notesSlide');
  const notes = relation && presentation.part(relation.part);
  if (notes === undefined) return [];
  const reader = new SlideReader();
  readXml(notes, reader);
  return reader.texts;
}

/** Placeholders whose text is furniture, the same on every slide. */
const furniture = new Set(['sldNum', 'dt', 'ftr', 'hdr', 'sldImg']);
const titlePlaceholders = new Set(['title', 'ctrTitle']);

/** Text of one slide (or page of notes), shape by shape. */
class SlideReader implements XmlHandler {
  readonly titles: string[] = [];
  readonly texts: string[] = [];
  isHidden = false;
  #placeholder: string | undefined;
  #paragraphs: string[] = [];
  #paragraph = '';
  #cells: string[] | undefined;
  #isText = false;
  /** Inside what repeats an alternative that was read already. */
  #fallbacks = 0;

  open(element: XmlElement): void {
    switch (element.name) {
      case 'sld':
        this.isHidden = element.attribute('show') === '0';
        return;
      case 'Fallback':
        this.#fallbacks++;
        return;
      case 'sp':
        this.#placeholder = undefined;
        return;
      case 'ph':
        this.#placeholder = element.attribute('type') ?? 'body';
        return;
      case 'tr':
        this.#cells = [];
        return;
      case 't':
        this.#isText = true;
        return;
      case 'br':
        this.#paragraph += '\n';
        return;
      default:
    }
  }

  close(name: string): void {
    switch (name) {
      case 'Fallback':
        this.#fallbacks--;
        return;
      case 't':
        this.#isText = false;
        return;
      case 'p':
        this.#endParagraph();
        return;
      case 'tc':
        this.#cells?.push(this.#takeText(' '));
        return;
      case 'tr':
        this.#push(this.#cells?.filter((cell) => cell !== '').join(' | ') ?? '', this.texts);
        this.#cells = undefined;
        return;
      case 'txBody':
        if (this.#cells === undefined) this.#endShape();
        return;
      default:
    }
  }

  text(text: string): void {
    if (this.#isText && this.#fallbacks === 0) this.#paragraph += text;
  }

  #endParagraph(): void {
    if (this.#paragraph.trim() !== '') this.#paragraphs.push(this.#paragraph);
    this.#paragraph = '';
  }

  #endShape(): void {
    const text = this.#takeText('\n');
    const placeholder = this.#placeholder ?? '';
    if (furniture.has(placeholder)) return;
    this.#push(text, titlePlaceholders.has(placeholder) ? this.titles : this.texts);
  }

  #takeText(separator: string): string {
    this.#endParagraph();
    const text = collapseBlanks(cleanText(this.#paragraphs.join(separator)));
    this.#paragraphs = [];
    return text;
  }

  #push(text: string, to: string[]): void {
    if (text !== '') to.push(text);
  }
}
