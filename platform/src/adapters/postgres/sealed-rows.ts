/** Rows as texts, with the values that are sealed at rest opened, or sealed for the tenant and the place they go to. */
import type { SealedColumn } from '../../encryption/sealed-record.ts';
import type { TenantCipher } from '../../encryption/tenant-cipher.ts';
import { sealedColumns } from './sealed-columns.ts';
import type { TenantTable } from './tenant-tables.ts';

/** Values as PostgreSQL writes them, in the order of the table's columns. */
export type TextRow = readonly (string | null)[];

interface Place {
  readonly column: SealedColumn;
  readonly at: number;
  readonly keys: readonly number[];
}

/** Throws `sealed_data_unreadable` when a value is not this tenant's value of this row. */
export async function openRows(cipher: TenantCipher, table: TenantTable, rows: readonly TextRow[]): Promise<readonly TextRow[]> {
  const opened = rows.map((row) => [...row]);
  for (const place of placesOf(table)) {
    const filled = opened.filter((row) => row[place.at] !== null);
    const values = await cipher.openAll(
      place.column,
      filled.map((row) => ({ row: keyOf(row, place), record: bytesOf(row[place.at]) })),
    );
    for (const [index, row] of filled.entries()) row[place.at] = textOf(values[index] ?? Buffer.alloc(0));
  }
  return opened;
}

export async function sealRows(cipher: TenantCipher, table: TenantTable, rows: readonly TextRow[]): Promise<readonly TextRow[]> {
  const places = placesOf(table);
  const count = places.reduce((sum, { at }) => sum + rows.filter((row) => row[at] !== null).length, 0);
  if (count === 0) return rows;
  const sealer = await cipher.sealer(count);
  return rows.map((row) => {
    const sealed = [...row];
    for (const place of places) {
      if (row[place.at] !== null) sealed[place.at] = textOf(sealer.seal(place.column, keyOf(row, place), bytesOf(row[place.at])));
    }
    return sealed;
  });
}

function placesOf({ name, columns }: TenantTable): readonly Place[] {
  const indexOf = (wanted: string) => columns.findIndex((column) => column.name === wanted);
  return sealedColumns
    .filter(({ table }) => table === name)
    .map((column) => ({ column, at: indexOf(column.column), keys: column.rowKey.map(indexOf) }));
}

/** Authenticated as text, so a number's text is as good as the number. */
function keyOf(row: TextRow, { keys }: Place): readonly string[] {
  return keys.map((at) => row[at] ?? '');
}

/** bytea in hexadecimal. */
function bytesOf(text: string | null | undefined): Buffer {
  return Buffer.from((text ?? '').slice(2), 'hex');
}

function textOf(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes).toString('hex')}`;
}
