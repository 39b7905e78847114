import { BacklogRanking } from './backlog-ranking.ts';
import type { FairRequest } from './fair-request.ts';

/**
 * Everything that waits, over all pools, in order of arrival. All may wait equally long, so this is also the order of deadlines: the oldest
 * is the next to be due, and no timer wheel is needed.
 */
export class WaitingLine {
  readonly ranking = new BacklogRanking();
  #oldest: FairRequest | undefined;
  #newest: FairRequest | undefined;
  #bytes = 0;

  get oldest(): FairRequest | undefined {
    return this.#oldest;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(request: FairRequest): void {
    request.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = request;
    else this.#newest.newer = request;
    this.#newest = request;
    this.#weigh(request, request.ticket.bytes);
  }

  remove(request: FairRequest): void {
    const { older, newer } = request;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    request.older = undefined;
    request.newer = undefined;
    this.#weigh(request, -request.ticket.bytes);
  }

  #weigh(request: FairRequest, bytes: number): void {
    this.#bytes += bytes;
    request.tenant.queuedBytes += bytes;
    this.ranking.update(request.tenant);
  }
}
