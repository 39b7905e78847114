/** What a heap orders. Least virtual time first; at a tie the one that has waited longest for its turn, which makes ties go round. */
export interface HeapMember {
  virtualTime: number;
  turn: number;
  /** Place in the heap, -1 outside; written by the heap alone. */
  heapIndex: number;
}

/** A binary heap whose members know their place, so that one whose time changed moves in O(log n) instead of being searched for. */
export class FlowHeap<Member extends HeapMember> {
  #members: Member[] = [];
  #hasGrown = false;

  get size(): number {
    return this.#members.length;
  }

  get first(): Member | undefined {
    return this.#members[0];
  }

  /** In no particular order. */
  members(): readonly Member[] {
    return this.#members;
  }

  /** The first members in order, at most `count`. */
  leading(count: number): readonly Member[] {
    const leading: Member[] = [];
    const next = this.#members.slice(0, 1);
    while (leading.length < count) {
      const first = next.reduce<Member | undefined>(
        (least, each) => (least === undefined || isBefore(each, least) ? each : least),
        undefined,
      );
      if (first === undefined) break;
      leading.push(first);
      const child = 2 * first.heapIndex + 1;
      next.splice(next.indexOf(first), 1, ...this.#members.slice(child, child + 2));
    }
    return leading;
  }

  push(member: Member): void {
    this.#append(member);
    this.#rise(member, this.#members.length - 1);
  }

  /** The first push into an empty array takes 17 places, of which the last pop gives 16 back; most heaps never have a second member. */
  #append(member: Member): void {
    if (this.#hasGrown) this.#members.push(member);
    else this.#members = [member];
    this.#hasGrown = true;
  }

  remove(member: Member): void {
    const index = member.heapIndex;
    const last = this.#members.pop();
    member.heapIndex = -1;
    if (last === undefined || last === member) return;
    this.#members[index] = last;
    last.heapIndex = index;
    this.moved(last);
  }

  /** Restores the order around a member whose time or turn has changed. */
  moved(member: Member): void {
    const index = member.heapIndex;
    this.#rise(member, index);
    if (member.heapIndex === index) this.#sink(member, index);
  }

  #rise(member: Member, from: number): void {
    const members = this.#members;
    let index = from;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = members[parentIndex];
      if (parent === undefined || !isBefore(member, parent)) break;
      members[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    members[index] = member;
    member.heapIndex = index;
  }

  #sink(member: Member, from: number): void {
    const members = this.#members;
    let index = from;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = members[childIndex];
      if (child === undefined) break;
      const right = members[childIndex + 1];
      if (right !== undefined && isBefore(right, child)) {
        child = right;
        childIndex++;
      }
      if (!isBefore(child, member)) break;
      members[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    members[index] = member;
    member.heapIndex = index;
  }
}

function isBefore(left: HeapMember, right: HeapMember): boolean {
  return left.virtualTime < right.virtualTime || (left.virtualTime === right.virtualTime && left.turn < right.turn);
}
