import { expect, test } from 'vitest';
import { chargesMax } from './permit-exchange.ts';
import { PoolCharges } from './pool-charges.ts';

const charge = (charges: PoolCharges, key: string, units: number, creditMax?: number) =>
  charges.charge({ level: 'interactive', key, units, creditMax });

// Planted: a batch that grows after it was sent; a new number for the same batch.
test('a batch that was not confirmed is sent again as it was, and what came later in the next', () => {
  const charges = new PoolCharges();
  charge(charges, 'acme', 5, 0);
  const first = charges.send();
  charge(charges, 'acme', 7, 0);
  expect(charges.send()).toEqual(first);
  expect(first).toMatchObject({ number: 1, charges: [{ key: 'acme', units: 5 }] });
  charges.confirm();
  expect(charges.send()).toMatchObject({ number: 2, charges: [{ key: 'acme', units: 7 }] });
  charges.confirm();
  expect(charges.isEmpty).toBe(true);
  expect(charges.send()).toEqual({ number: 2, charges: [] });
});

test('a start is remembered with what was charged before it, and a refund with its bound', () => {
  const charges = new PoolCharges();
  charges.began('interactive', 'acme');
  charge(charges, 'acme', 100);
  charge(charges, 'acme', -30, 200);
  charge(charges, 'acme', 50);
  charge(charges, 'acme', 0, 900);
  const [sent] = charges.send().charges;
  expect(sent).toEqual({ level: 'interactive', key: 'acme', hasBegun: true, startedAfter: 70, units: 120, creditMax: 200 });
});

// Planted: forgetting the batch that is on its way.
test('what a time does not include yet is the rest, and the batch it was made without', () => {
  const charges = new PoolCharges();
  charge(charges, 'acme', 5, 0);
  const { number } = charges.send();
  charge(charges, 'acme', 7, 0);
  expect(charges.since('interactive', 'acme')).toEqual({ hasBegun: false, units: 7 });
  expect(charges.since('interactive', 'acme', number - 1)).toEqual({ hasBegun: false, units: 12 });
  expect(charges.since('interactive', 'globex')).toEqual({ hasBegun: false, units: 0 });
});

test('a batch and what waits for it are bounded', () => {
  const charges = new PoolCharges();
  for (let index = 0; index < 10_002; index++) charge(charges, `t${index}`, 1, 0);
  expect(charges.send().charges).toHaveLength(chargesMax);
  let sent = 0;
  while (!charges.isEmpty) {
    sent += charges.send().charges.length;
    charges.confirm();
  }
  expect(sent).toBe(10_000);
});
