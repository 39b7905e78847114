/** Numbers of a spreadsheet as people read them. */

/** Built-in formats of dates and times (ECMA-376 part 1, 18.8.30), and what their reserved numbers mean in East Asian locales. */
function isBuiltInDate(formatId: number): boolean {
  return (
    (formatId >= 14 && formatId <= 22) ||
    (formatId >= 27 && formatId <= 36) ||
    (formatId >= 45 && formatId <= 47) ||
    (formatId >= 50 && formatId <= 58)
  );
}

/** Whether numbers in this format are dates or times. `code`: of a format that the workbook defines itself. */
export function isDateFormat(formatId: number, code: string | undefined): boolean {
  if (code === undefined) return isBuiltInDate(formatId);
  // Without quoted text, escaped characters, fill characters, and colours or locales in brackets; elapsed time in brackets stays.
  const bare = code.replace(/"[^"]*"|\\.|[_*].|\[(?![hms]+\])[^\]]*\]/gi, '');
  return /[dmyhs]/i.test(bare) && !/general/i.test(bare);
}

/** 15 significant digits, as spreadsheets show: the rest is the noise of binary fractions. */
export function numberText(text: string): string {
  const value = Number(text);
  return text.trim() === '' || !Number.isFinite(value) ? text : String(Number(value.toPrecision(15)));
}

const dayMs = 86_400_000;
const epoch1904Ms = Date.UTC(1904, 0, 1);
/** The 1900 system counts a 29 February 1900 that never was, so days are right from 1 March 1900. */
const epoch1900Ms = Date.UTC(1899, 11, 30);
/** 31 December 9999. */
const serialMax = 2_958_465;

/** A date serial in ISO form: `2026-11-26`, `2026-11-26 13:30`, or `13:30` for a time of day alone. Anything else stays a number. */
export function serialText(text: string, countsFrom1904: boolean): string {
  const serial = Number(text);
  if (text.trim() === '' || !(serial >= 0 && serial < serialMax + 1)) return numberText(text);
  const minutes = Math.round(serial * 1_440);
  const iso = new Date((countsFrom1904 ? epoch1904Ms : epoch1900Ms) + (minutes / 1_440) * dayMs).toISOString();
  const [date = '', time = ''] = iso.slice(0, 16).split('T');
  if (serial < 1) return time;
  return minutes % 1_440 === 0 ? date : `${date} ${time}`;
}
