import type { Random } from '../../primitives/random.ts';
import { findPassages, quotePassages } from './passages.ts';
import type { Prompt } from './prompt.ts';

const quotedCharactersMax = 160;
/** Words of a free answer: log-normal around this. */
const wordsMedian = 60;
const wordsSpread = 0.5;
const wordsMax = 600;

/** The words of an answer. Says that it is simulated, quotes retrieved passages when there are any, and a tool's result when that came last. */
export function composeAnswer(prompt: Prompt, random: Random): string {
  if (prompt.toolResult !== undefined) return `Simulated answer from the tool's result: ${shorten(prompt.toolResult)}`;
  const passages = findPassages(prompt.instructions);
  if (passages.length === 0) return composeFreely(prompt, random);
  const quotes = quotePassages(passages, prompt.question);
  if (quotes === undefined) return 'Simulated answer: the passages say nothing about this question.';
  return `Simulated answer, quoted from your documents: ${quotes}`;
}

/** About `median`, rarely a fifth or five times of it. */
export function logNormal(random: Random, median: number, spread: number): number {
  // Box and Muller; 1 - x keeps the logarithm away from zero.
  const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
  return median * Math.exp(spread * normal);
}

const sentences = [
  'No model was asked; this text comes from a seeded generator.',
  'It arrives at the configured pace, so queues and limits behave as they would with a real model.',
  'Its tokens are counted and priced like any other.',
  'The same request with the same seed gives the same words.',
  'Configure a provider to get real answers in its place.',
  'Nothing that was sent here has left this machine.',
  'What follows has no meaning beyond its length.',
  'Some answers are short and a few are long, as with a real model.',
] as const;

function composeFreely(prompt: Prompt, random: Random): string {
  const images = prompt.imageCount === 0 ? '' : ` It came with ${prompt.imageCount} image${prompt.imageCount === 1 ? '' : 's'}.`;
  let text = `This is a simulated answer. You asked: "${shorten(prompt.question)}"${images}`;
  const words = Math.min(wordsMax, logNormal(random, wordsMedian, wordsSpread));
  for (let count = 16; count < words; count += 12) {
    text += ` ${sentences[Math.floor(random.next() * sentences.length)]}`;
  }
  return text;
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > quotedCharactersMax ? `${line.slice(0, quotedCharactersMax - 1).toWellFormed()}…` : line;
}
