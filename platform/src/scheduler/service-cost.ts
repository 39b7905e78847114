/**
 * What a request costs, and how much of it is charged when. With theta = 0 output is charged as it is produced (VTC, arXiv 2401.00588),
 * with theta = 1 the whole prediction at dispatch; see docs/rfd/0003-fair-queue.md for the default between them.
 */
export interface CostRule {
  /** Part of the predicted output that is charged at dispatch, 0 to 1. */
  readonly theta: number;
  /** What an output token costs, where an uncached input token costs 1. */
  readonly outputTokenCost: number;
}

export interface Sized {
  readonly inputTokens: number;
  readonly predictedOutputTokens: number;
}

/** A cached input token costs a tenth (the usual price ratio). */
const cachedTokenDiscount = 0.9;
/** A count beyond it is a fault of the upstream, and must not move the clock of a whole pool. */
const tokensMax = 10_000_000;

const weightMin = 0.01;
const weightMax = 1_000_000;
/** Units per cost at weight 1. Charges are whole units, so that adding and undoing are exact; at the largest weight a token is still 0.07 units. */
export const unitsPerCost = 65_536;

/** Cost of a request of which `outputTokens` have been produced so far. */
export function costSoFar(rule: CostRule, request: Sized, outputTokens: number): number {
  const predicted = saneTokens(request.predictedOutputTokens);
  const produced = saneTokens(outputTokens);
  const inside = Math.min(produced, predicted);
  const output = rule.theta * predicted + (1 - rule.theta) * inside + (produced - inside);
  return saneTokens(request.inputTokens) + rule.outputTokenCost * output;
}

export interface ActualTokens {
  readonly inputTokens: number;
  /** Part of the input tokens that the upstream had cached. */
  readonly cachedInputTokens?: number | undefined;
  readonly outputTokens: number;
}

export function finalCost(rule: CostRule, actual: ActualTokens): number {
  const input = saneTokens(actual.inputTokens);
  const cached = Math.min(input, saneTokens(actual.cachedInputTokens ?? 0));
  return input - cachedTokenDiscount * cached + rule.outputTokenCost * saneTokens(actual.outputTokens);
}

/** What a request will cost if the prediction is right and nothing was cached. */
export function expectedCost(rule: CostRule, { inputTokens, predictedOutputTokens }: Sized): number {
  return saneTokens(inputTokens) + rule.outputTokenCost * saneTokens(predictedOutputTokens);
}

/** The cost as virtual time: whole units. Charging differences of it makes the sum of all charges exact, however they were cut. */
export function unitsOf(cost: number, weight: number): number {
  return Math.round((cost * unitsPerCost) / weight);
}

export function saneWeight(weight: number): number {
  return weight >= weightMin ? Math.min(weight, weightMax) : weightMin;
}

/** Not a number, negative and absurd counts become 0 or the largest count. */
export function saneTokens(tokens: number): number {
  return tokens > 0 ? Math.min(tokens, tokensMax) : 0;
}
