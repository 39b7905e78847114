import { cleanText } from './clean-text.ts';
import type { TextBlock } from './document.ts';

/** Paragraphs are separated by empty lines; there are no headings to trust in plain text. */
export function parsePlainText(text: string): TextBlock[] {
  return paragraphsOf(cleanText(text)).map((paragraph) => ({ text: paragraph }));
}

/** ATX (`## Title`) and setext (underlined) headings, https://spec.commonmark.org/0.31.2/; fenced code is never a heading. */
export function parseMarkdown(text: string): TextBlock[] {
  const blocks: TextBlock[] = [];
  let lines: string[] = [];
  let fence: string | undefined;
  const flush = (headingLevel?: number) => {
    const body = lines.join('\n').replace(/^\n+|\s+$/g, '');
    if (body !== '') blocks.push(headingLevel === undefined ? { text: body } : { text: body.trim(), headingLevel });
    lines = [];
  };
  for (const line of cleanText(text).split('\n')) {
    const fenceMark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (fence !== undefined || fenceMark !== undefined) {
      if (fence === undefined) fence = fenceMark;
      else if (fenceMark?.startsWith(fence)) fence = undefined;
      lines.push(line);
      continue;
    }
    const atx = /^ {0,3}(#{1,6})(?:[ \t]+|$)/.exec(line);
    if (atx) {
      flush();
      lines.push(line.slice(atx[0].length).replace(/[ \t]#+[ \t]*$/, ''));
      flush(atx[1]?.length);
    } else if (lines.length === 1 && lines[0]?.trim() !== '' && /^ {0,3}(=+|-+)[ \t]*$/.test(line)) {
      flush(line.includes('=') ? 1 : 2);
    } else if (line.trim() === '') {
      flush();
    } else {
      lines.push(line);
    }
  }
  flush();
  return blocks;
}

function paragraphsOf(text: string): string[] {
  return text
    .split(/\n[^\S\n]*\n/)
    .map((paragraph) => paragraph.replace(/^\n+|\s+$/g, ''))
    .filter((paragraph) => paragraph.trim() !== '');
}
