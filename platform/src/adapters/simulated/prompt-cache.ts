import { createHash } from 'node:crypto';
import type { Prompt } from './prompt.ts';

/** As OpenAI's: prompts from 1,024 tokens, hits in steps of 128. */
const promptTokensMin = 1_024;
const stepTokens = 128;
const blockCharacters = 512;
const blocksMax = 10_000;

/**
 * Remembers which beginnings of prompts were seen under which salt, to report cached tokens as a provider does. The salt is part of
 * every key and a call without one neither reads nor writes, so no tenant can see what another sent.
 */
export class PromptCache {
  /** Oldest first. */
  readonly #blocks = new Set<string>();

  /** Tokens of this prompt's beginning that were there before; then remembers all of it. */
  cachedTokens(prompt: Prompt, salt: string | undefined): number {
    if (salt === undefined || prompt.tokens < promptTokensMin) return 0;
    const text = prompt.messages.map((message) => `${message.role}\n${message.text}`).join('\n\n');
    let key = salt;
    let seen = 0;
    let isPrefixKnown = true;
    for (let end = blockCharacters; end <= text.length; end += blockCharacters) {
      key = createHash('sha256')
        .update(JSON.stringify([key, text.slice(end - blockCharacters, end)]))
        .digest('base64');
      isPrefixKnown &&= this.#blocks.has(key);
      if (isPrefixKnown) seen = end;
      this.#remember(key);
    }
    const tokens = Math.floor((seen / text.length) * prompt.tokens);
    return tokens < promptTokensMin ? 0 : tokens - (tokens % stepTokens);
  }

  #remember(key: string): void {
    this.#blocks.delete(key);
    this.#blocks.add(key);
    if (this.#blocks.size <= blocksMax) return;
    for (const oldest of this.#blocks) {
      this.#blocks.delete(oldest);
      return;
    }
  }
}
