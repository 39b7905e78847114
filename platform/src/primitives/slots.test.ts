import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Slots } from './slots.ts';

describe('slots', () => {
  it('give back what was put, whatever comes and goes between', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 30 }), { maxLength: 200 }), (choices) => {
        const slots = new Slots<{ readonly name: number }>();
        const there: { slot: number; name: number }[] = [];
        for (const [name, choice] of choices.entries()) {
          const leaving = choice < 15 ? there.splice(choice, 1)[0] : undefined;
          if (leaving !== undefined) expect(slots.take(leaving.slot).name).toBe(leaving.name);
          else there.push({ slot: slots.put({ name }), name });
          expect(slots.size).toBe(there.length);
        }
        expect([...slots].map(({ name }) => name).toSorted((left, right) => left - right)).toEqual(there.map(({ name }) => name));
        for (const { slot, name } of there) expect(slots.at(slot).name).toBe(name);
      }),
    );
  });

  it('use numbers again, so that they do not grow with what has passed', () => {
    const slots = new Slots<object>();
    const numbers = Array.from({ length: 1_000 }, () => {
      const slot = slots.put({});
      slots.take(slot);
      return slot;
    });
    expect(Math.max(...numbers)).toBe(0);
  });

  it('are never taken twice', () => {
    const slots = new Slots<object>();
    const slot = slots.put({});
    slots.take(slot);
    expect(() => slots.take(slot)).toThrow('the slot is taken');
    expect(() => slots.at(slot)).toThrow('the slot is taken');
  });

  it('may be emptied by who looks through them', () => {
    const slots = new Slots<{ slot: number }>();
    for (let index = 0; index < 5; index++) {
      const value = { slot: -1 };
      value.slot = slots.put(value);
    }
    for (const value of slots) slots.take(value.slot);
    expect(slots.size).toBe(0);
  });
});
