/** What one vector is made of: text, or the tokens of a text. */
export type EmbeddingInput = string | readonly number[];

/**
 * The inputs of an embeddings request, one for each vector of the answer: a string or one list of tokens is one input, a list of
 * either is as many as it has. Entries of another form come back as they are, for the provider to refuse.
 */
export function embeddingInputs(input: unknown): readonly unknown[] {
  return Array.isArray(input) && !isTokens(input) ? input : [input];
}

export function isEmbeddingInput(input: unknown): input is EmbeddingInput {
  return typeof input === 'string' || isTokens(input);
}

function isTokens(input: unknown): input is readonly number[] {
  return Array.isArray(input) && input.length > 0 && input.every((entry) => Number.isInteger(entry) && entry >= 0);
}
