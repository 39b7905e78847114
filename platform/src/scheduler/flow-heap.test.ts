import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FlowHeap, type HeapMember } from './flow-heap.ts';

const member = (virtualTime: number, turn: number): HeapMember => ({ virtualTime, turn, heapIndex: -1 });
const step = fc.record({ kind: fc.constantFrom('push', 'remove', 'move'), pick: fc.nat(), virtualTime: fc.nat(20) });

// Planted: sinking towards the larger child, not restoring the order after a removal; leading members without the second child.
test('the first are always the least, after any pushes, removals and moves', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const heap = new FlowHeap<HeapMember>();
      const inside: HeapMember[] = [];
      for (const [turn, { kind, pick, virtualTime }] of steps.entries()) {
        const chosen = inside[pick % Math.max(1, inside.length)];
        if (kind === 'push' || chosen === undefined) {
          const added = member(virtualTime, turn);
          inside.push(added);
          heap.push(added);
        } else if (kind === 'remove') {
          inside.splice(inside.indexOf(chosen), 1);
          heap.remove(chosen);
          expect(chosen.heapIndex).toBe(-1);
        } else {
          chosen.virtualTime = virtualTime;
          heap.moved(chosen);
        }
        const inOrder = inside.toSorted((left, right) => left.virtualTime - right.virtualTime || left.turn - right.turn);
        expect(heap.first).toBe(inOrder[0]);
        expect(heap.leading(pick % 20)).toEqual(inOrder.slice(0, pick % 20));
        expect(heap.size).toBe(inside.length);
        for (const [index, item] of heap.members().entries()) expect(item.heapIndex).toBe(index);
      }
    }),
  );
});
