/** FNV-1a, 32 bits: spreads names over places. Whoever chooses the names can choose the place; use it where that is no weapon. */
export function fnvHashOf(text: string): number {
  let hash = 2_166_136_261;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 16_777_619);
  return hash >>> 0;
}
