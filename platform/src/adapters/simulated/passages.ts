/**
 * What makes a simulated model worth demonstrating retrieval with: given numbered passages, it answers by quoting the sentences that
 * share most with the question, and cites them. So two tenants who ask the same get answers from their own documents.
 */

export interface NumberedPassage {
  readonly number: number;
  readonly text: string;
}

const passagesMax = 64;
const charactersMax = 200_000;
const sentencesMax = 2_000;
const questionCharactersMax = 4_000;
const quoteCharactersMax = 400;
const quotesMax = 2;
/** A second quote must be nearly as good as the first. */
const secondQuoteShare = 0.6;

/** Passages in the form `[n] (file: NAME) text`; each goes on until the next one begins. */
export function findPassages(instructions: string): readonly NumberedPassage[] {
  const text = instructions.slice(0, charactersMax);
  const marks = [...text.matchAll(/^\[(\d{1,3})\] \(file: [^()\n]*\) /gm)].slice(0, passagesMax);
  return marks.map((mark, index) => ({
    number: Number(mark[1]),
    text: text.slice(mark.index + mark[0].length, marks[index + 1]?.index).trim(),
  }));
}

/** Quotes with their `[n]`, or undefined when no sentence shares a word with the question. */
export function quotePassages(passages: readonly NumberedPassage[], question: string): string | undefined {
  const sentences = passages.flatMap(sentencesOf).slice(0, sentencesMax);
  const weights = termWeights(sentences, new Set(termsOf(question.slice(0, questionCharactersMax))));
  const ranked = sentences
    .map((sentence) => ({ sentence, score: scoreOf(sentence, weights) }))
    .sort((left, right) => right.score - left.score);
  const [best] = ranked;
  if (best === undefined || best.score === 0) return undefined;
  const quoted = ranked.slice(0, quotesMax).filter(({ score }) => score >= best.score * secondQuoteShare);
  return quoted.map(({ sentence }) => `"${quotable(sentence.text)}" [${sentence.passage}]`).join(' ');
}

interface Sentence {
  readonly passage: number;
  readonly text: string;
  readonly terms: ReadonlySet<string>;
}

/** Every sentence, with the words of the heading it stands under; a heading itself answers nothing. */
function sentencesOf({ number, text }: NumberedPassage): Sentence[] {
  const sentences: Sentence[] = [];
  let heading: readonly string[] = [];
  for (const block of text.split(blockEnd)) {
    const title = /^#{1,6} (.*)/.exec(block.trim())?.[1];
    if (title !== undefined) heading = termsOf(title);
    else
      sentences.push(
        ...sentencesOfBlock(block).map((sentence) => ({
          passage: number,
          text: sentence,
          terms: new Set([...termsOf(sentence), ...heading]),
        })),
      );
  }
  return sentences;
}

/** An empty line, the line of a heading, a list's next entry, or a line that ends a sentence: not a line break in the middle of one. */
const blockEnd = /\n\s*\n|(?<=^#{1,6} [^\n]{0,200})\n|\n(?=\s*(?:[-*+•]|\d{1,3}[.)]|#{1,6}) )|(?<=[.!?。！？])\n/mu;

function sentencesOfBlock(block: string): string[] {
  const sentences = block
    .replace(/\s+/g, ' ')
    .split(/(?<=[.!?])\s+|(?<=[。！？])/u)
    .map((sentence) => sentence.trim());
  return sentences.filter((sentence) => sentence !== '');
}

/** Words without their endings: five letters are enough to bring `refund` and `refunds` together. Ideographs one by one. */
function termsOf(text: string): string[] {
  const words = text.toLowerCase().match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|[\p{L}\p{N}]+/gu) ?? [];
  return words.filter((word) => !emptyWords.has(word)).map((word) => word.slice(0, 5));
}

/** A handful of sentences is too little for statistics to find the words that say nothing. */
const emptyWords: ReadonlySet<string> = new Set(
  (
    'a an and any are as at be by can do does for from had has have how i if in is it its may me my of on or our shall should so that the ' +
    'their them there they this to was we were what when where which who why will with would you your ' +
    'das der die ein eine ist im in mit und von was wer wie wo zu'
  ).split(' '),
);

/** Rare among the sentences is telling (BM25's idf). */
function termWeights(sentences: readonly Sentence[], terms: ReadonlySet<string>): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const term of terms) {
    const holders = sentences.filter((sentence) => sentence.terms.has(term)).length;
    if (holders > 0) weights.set(term, Math.log(1 + (sentences.length - holders + 0.5) / (holders + 0.5)));
  }
  return weights;
}

function scoreOf(sentence: Sentence, weights: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const [term, weight] of weights) if (sentence.terms.has(term)) sum += weight;
  return sum / (1 + 0.2 * Math.log(1 + sentence.terms.size));
}

/** A mark inside the passage must not turn into a citation of our own. */
function quotable(text: string): string {
  const cut = text.length > quoteCharactersMax ? `${text.slice(0, quoteCharactersMax - 1).toWellFormed()}…` : text;
  return cut.replace(/\[(\d{1,3})\]/g, '($1)');
}
