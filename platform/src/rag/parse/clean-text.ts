/**
 * Text as it is indexed: NFC, well-formed, line ends as `\n`, and without what a reader cannot see. Invisible characters carry
 * hidden instructions and split words for the index; joiners that scripts and emoji need (U+200C, U+200D) stay.
 */
export function cleanText(text: string): string {
  const visible = text.toWellFormed().replace(/\r\n?/g, '\n').replace(invisible, '');
  return visible.normalize('NFC');
}

/** C0 and C1 controls except tab and newline, soft hyphen, zero-width and bidirectional marks, byte-order mark, tag characters. */
const invisible = /[[\p{Cc}--[\t\n]]\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gv;

/** Runs of blanks become one, at most one line break survives a run that holds any. For formats where white space is layout. */
export function collapseBlanks(text: string): string {
  return text
    .replace(/[^\S\n]+/g, ' ')
    .replace(/ ?\n ?/g, '\n')
    .replace(/\n{2,}/g, '\n')
    .trim();
}
