/**
 * Rewrites an English question for searching without a model: what people say around a question is dropped, what it is about is kept in its order. The
 * same for everybody, a function of the text alone, and nothing changes when it is applied twice. Other languages are left as they are.
 */

/** Say nothing about the subject. Negations, comparisons, numbers and prepositions of time and place are not among them: they change what is asked. */
const scaffolding = new Set(
  (
    'a about am an and any are be been being can could describe did do does doing explain find for get give had has have having hello help hey hi how i if is ' +
    "it it's its know let like list look looking may me might much my need of or our please question search show tell that the their them there these " +
    "they this those to us want was we were what what's when where where's which who who's whom whose why will wish with wonder wondering would you your"
  ).split(' '),
);

/** Words that no other large language written in ASCII begins a question with, or uses often. */
const unmistakable = new Set(
  "what what's how who where when why which whose please can could would should does did explain describe show tell the about with your my you".split(
    ' ',
  ),
);
const openings =
  /^(?:what|how|who|where|when|why|which|whose|please|can you|could you|would you|tell me|show me|give me|explain|describe)\b/i;

const quoted = /"[^"]{1,256}"/g;
/** Not the dot of `.NET` in front. */
const atEdges = /^[,;:!?()[\]]+|[,;:.!?()[\]]+$/g;

/** Returns the text itself when it is not plain English or nothing would be left. */
export function rewriteByRule(text: string): string {
  const plain = text.replaceAll(/[‘’]/g, "'").replaceAll(/[“”]/g, '"');
  if (!isEnglishQuestion(plain)) return text;
  const kept: string[] = [];
  for (const piece of piecesOf(plain)) {
    if (piece.startsWith('"')) kept.push(piece);
    else
      kept.push(
        ...piece
          .split(/\s+/)
          .map((word) => word.replaceAll(atEdges, ''))
          .filter(isAboutSomething),
      );
  }
  return kept.length === 0 ? text : kept.join(' ');
}

/** Phrases in quotation marks whole, and what stands between them. */
function piecesOf(text: string): readonly string[] {
  const pieces: string[] = [];
  let from = 0;
  for (const match of text.matchAll(quoted)) {
    pieces.push(text.slice(from, match.index), match[0]);
    from = match.index + match[0].length;
  }
  return [...pieces, text.slice(from)];
}

function isEnglishQuestion(text: string): boolean {
  if (/[^\x20-\x7e\s]/.test(text)) return false;
  if (openings.test(text.trimStart())) return true;
  const words = new Set(text.toLowerCase().split(/[^a-z']+/));
  return [...unmistakable].filter((word) => words.has(word)).length >= 2;
}

function isAboutSomething(word: string): boolean {
  return word !== '' && !scaffolding.has(word.toLowerCase());
}
