import { BacklogRanking } from './backlog-ranking.ts';
import type { FairRequest } from './fair-request.ts';

/**
 * Everything that waits, over all pools, in order of arrival. All may wait equally long, so this is also the order of deadlines: the oldest
 * is the next to be due, and no timer wheel is needed.
 */
export class WaitingLine {
  #ranking: BacklogRanking | undefined;
  /** When the ranking was made. */
  #rankedBytes = 0;
  #oldest: FairRequest | undefined;
  #newest: FairRequest | undefined;
  #bytes = 0;

  get oldest(): FairRequest | undefined {
    return this.#oldest;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The tenants that wait. Asked for only when memory is short, so it is made when it is first asked for, by a pass over all that waits, kept while
   * memory stays short, and let go when half of what waited then has left: a twentieth of the queue's time otherwise.
   */
  get ranking(): BacklogRanking {
    if (this.#ranking !== undefined) return this.#ranking;
    const ranking = new BacklogRanking();
    for (let request = this.#oldest; request !== undefined; request = request.newer) ranking.update(request.session.user.tenant);
    this.#ranking = ranking;
    this.#rankedBytes = this.#bytes;
    return ranking;
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
    if (this.#bytes * 2 < this.#rankedBytes) this.#ranking = undefined;
    this.#ranking?.update(tenant);
  }
}
