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
    if (this.#newest === undefined || this.#newest.arrivedAtMs <= request.arrivedAtMs) this.#insert(request, this.#newest, undefined);
    else {
      // It came back: older than all but others that did.
      let newer = this.#oldest;
      while (newer !== undefined && newer.arrivedAtMs <= request.arrivedAtMs) newer = newer.newer;
      this.#insert(request, newer?.older, newer);
    }
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

  #insert(request: FairRequest, older: FairRequest | undefined, newer: FairRequest | undefined): void {
    request.older = older;
    request.newer = newer;
    if (older === undefined) this.#oldest = request;
    else older.newer = request;
    if (newer === undefined) this.#newest = request;
    else newer.older = request;
  }

  #weigh(request: FairRequest, bytes: number): void {
    this.#bytes += bytes;
    const { tenant } = request.session.user;
    tenant.queuedBytes += bytes;
    this.ranking.update(tenant);
  }
}
