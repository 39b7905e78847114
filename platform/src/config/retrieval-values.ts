/** What a vector store can be made with. Both are written into each store, which keeps them whatever the configuration says later. */

/** Sizes of vectors that the database has a table for. */
export const embeddingDimensions: readonly number[] = [384, 768, 1_024, 1_536, 3_072];
/** Of an embedding model that is configured without. */
export const embeddingDimensionsDefault = 1_536;

/** Text search configurations a store may use: those of every PostgreSQL. */
export const lexicalLanguages: ReadonlySet<string> = new Set([
  'simple',
  'arabic',
  'armenian',
  'basque',
  'catalan',
  'danish',
  'dutch',
  'english',
  'finnish',
  'french',
  'german',
  'greek',
  'hindi',
  'hungarian',
  'indonesian',
  'irish',
  'italian',
  'lithuanian',
  'nepali',
  'norwegian',
  'portuguese',
  'romanian',
  'russian',
  'serbian',
  'spanish',
  'swedish',
  'tamil',
  'turkish',
  'yiddish',
]);
