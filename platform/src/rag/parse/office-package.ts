import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { readArchive } from './archive.ts';
import { readXml } from './xml-safety.ts';

/** The parts of an Office Open XML document (ECMA-376 part 2) that hold text: the archive is checked, media and embedded objects are dropped. */
export class OfficePackage {
  readonly #parts = new Map<string, Buffer>();

  /** `folder` holds the main part, `main`. Throws what `readArchive` throws, and `file_type_mismatch` for another archive. */
  constructor(bytes: Uint8Array, { folder, main }: { readonly folder: 'xl' | 'ppt'; readonly main: string }) {
    for (const { name, bytes: content } of readArchive(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))) {
      if (name.startsWith(`${folder}/`) && /\.(xml|rels)$/.test(name)) this.#parts.set(name, content);
    }
    if (!this.#parts.has(main)) throw new BulkheadError('file_type_mismatch', `the archive has no ${main}`);
  }

  part(name: string): Buffer | undefined {
    return this.#parts.get(name);
  }

  /** What a part points at, by relationship id. What leads outside the package is left out: nothing is ever fetched. */
  relationsOf(name: string): ReadonlyMap<string, Relation> {
    const relations = new Map<string, Relation>();
    const slash = name.lastIndexOf('/');
    const listing = this.#parts.get(`${name.slice(0, slash)}/_rels/${name.slice(slash + 1)}.rels`);
    if (listing === undefined) return relations;
    readXml(listing, {
      open: (element) => {
        const id = element.attribute('Id');
        const target = element.attribute('Target');
        if (element.name !== 'Relationship' || id === undefined || target === undefined) return;
        if (element.attribute('TargetMode') === 'External') return;
        const kind = (element.attribute('Type') ?? '').split('/').at(-1) ?? '';
        relations.set(id, { kind, part: resolvePart(name.slice(0, slash), target) });
      },
      close() {},
      text() {},
    });
    return relations;
  }
}

export interface Relation {
  /** The last word of its type, for example `slide`. */
  readonly kind: string;
  readonly part: string;
}

function resolvePart(folder: string, target: string): string {
  if (target.startsWith('/')) return target.slice(1);
  const segments = folder.split('/');
  for (const segment of target.split('/')) {
    if (segment === '..') segments.pop();
    else if (segment !== '.') segments.push(segment);
  }
  return segments.join('/');
}
