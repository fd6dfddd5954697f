/** How moments read, in the reader's own time zone or in UTC. Pure but for asking the browser for its zone. */

export type Zone = "local" | "utc";

const US_PER_MS = 1_000;
const MS_PER_DAY = 86_400_000;

interface Formats {
  time: Intl.DateTimeFormat;
  day: Intl.DateTimeFormat;
  shortDay: Intl.DateTimeFormat;
  key: Intl.DateTimeFormat;
}

const FORMATS: Record<Zone, Formats> = { local: formats({}), utc: formats({ timeZone: "UTC" }) };

/** `14:03:22`. */
export function timeOfDay(tsUs: number, zone: Zone): string {
  return FORMATS[zone].time.format(tsUs / US_PER_MS);
}

/** The milliseconds of a moment, three digits: `118`. */
export function milliseconds(tsUs: number): string {
  return String(Math.floor(tsUs / US_PER_MS) % 1_000).padStart(3, "0");
}

/** A day's key, the same for every moment of that day: `2026-11-23`. */
export function dayKey(tsUs: number, zone: Zone): string {
  return FORMATS[zone].key.format(tsUs / US_PER_MS);
}

/** `Today`, `Yesterday` or null. */
export function nearDay(tsUs: number, nowUs: number, zone: Zone): string | null {
  const key = dayKey(tsUs, zone);
  if (key === dayKey(nowUs, zone)) return "Today";
  if (key === dayKey(nowUs - MS_PER_DAY * US_PER_MS, zone)) return "Yesterday";
  return null;
}

/** `Monday 23 November 2026`. */
export function dayName(tsUs: number, zone: Zone): string {
  return FORMATS[zone].day.format(tsUs / US_PER_MS).replace(",", "");
}

/** `23 Nov`. */
export function shortDay(tsUs: number, zone: Zone): string {
  return FORMATS[zone].shortDay.format(tsUs / US_PER_MS);
}

/** The full moment with microseconds, in UTC: `2026-11-23 01:11:09.123456 UTC`. */
export function fullUtc(tsUs: number): string {
  const rest = String(tsUs % 1_000_000).padStart(6, "0");
  return `${new Date(tsUs / US_PER_MS).toISOString().slice(0, 19).replace("T", " ")}.${rest} UTC`;
}

/** What a zone is called: `UTC`, or `Berlin UTC+1` for the reader's own at the moment `nowUs`. */
export function zoneName(zone: Zone, nowUs: number): string {
  if (zone === "utc") return "UTC";
  const city = Intl.DateTimeFormat().resolvedOptions().timeZone.split("/").pop()?.replaceAll("_", " ") ?? "Local";
  const offset = utcOffset(nowUs);
  return city === "UTC" ? "Local (UTC)" : `${city} ${offset}`;
}

/** `UTC+1`, `UTC−3:30`. */
function utcOffset(nowUs: number): string {
  const minutes = -new Date(nowUs / US_PER_MS).getTimezoneOffset();
  const whole = Math.floor(Math.abs(minutes) / 60);
  const rest = Math.abs(minutes) % 60;
  return `UTC${minutes < 0 ? "−" : "+"}${whole}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
}

/** The value of a datetime-local field for a moment: `2026-11-23T01:11`. */
export function fieldValue(tsUs: number, zone: Zone): string {
  return `${dayKey(tsUs, zone)}T${timeOfDay(tsUs, zone).slice(0, 5)}`;
}

/** The moment that a datetime-local field names in a zone, or null for an empty or broken one. */
export function fromField(value: string, zone: Zone): number | null {
  const ms = Date.parse(zone === "utc" ? `${value}Z` : value);
  return Number.isNaN(ms) ? null : ms * US_PER_MS;
}

function formats(zone: { timeZone?: string }): Formats {
  const make = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-GB", { ...options, ...zone });
  return {
    time: make({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
    day: make({ weekday: "long", day: "numeric", month: "long", year: "numeric" }),
    shortDay: make({ day: "numeric", month: "short" }),
    key: new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit", ...zone }),
  };
}
