/** Flows by key, in no particular order. The first has a place of its own: most users have one session, and a map for it would cost more than all the rest. */
export class FlowTable<Key extends string, Member extends { readonly key: Key }> {
  #first: Member | undefined;
  #others: Map<Key, Member> | undefined;

  get size(): number {
    return (this.#first === undefined ? 0 : 1) + (this.#others?.size ?? 0);
  }

  get(key: Key): Member | undefined {
    return this.#first?.key === key ? this.#first : this.#others?.get(key);
  }

  /** For a key that is not in the table. */
  add(member: Member): void {
    if (this.#first === undefined) {
      this.#first = member;
      return;
    }
    this.#others ??= new Map();
    this.#others.set(member.key, member);
  }

  delete(key: Key): void {
    if (this.#first?.key === key) this.#first = undefined;
    else this.#others?.delete(key);
  }

  clear(): void {
    this.#first = undefined;
    this.#others = undefined;
  }

  *values(): Generator<Member, undefined> {
    if (this.#first !== undefined) yield this.#first;
    if (this.#others !== undefined) yield* this.#others.values();
  }
}
