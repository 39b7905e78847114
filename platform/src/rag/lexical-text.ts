/**
 * Text as the lexical index sees it. PostgreSQL's parser takes a run of Chinese, Japanese or Korean characters for one word, so each
 * such character is set apart and becomes a word of its own. Questions and documents must pass through the same function.
 */
export function lexicalText(text: string): string {
  return text.replace(unspacedScripts, ' $& ');
}

/** Han, kana, hangul, and Thai, Lao, Khmer and Burmese, which are also written without spaces. */
const unspacedScripts = /[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/gu;
