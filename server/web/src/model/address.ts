/** What the part of the address behind `#` says: `/`, `/event/<id>`, each with filters, or a token to log in with. Pure. */
import { type Filters, readFilters, writeFilters } from "./filters";

export interface Place {
  eventId: string | null;
  filters: Filters;
}

export function readAddress(hash: string): Place {
  const [path = "", query = ""] = split(hash.replace(/^#/, ""), "?");
  const event = /^\/event\/([^/]+)$/.exec(path);
  return { eventId: event?.[1] ? decode(event[1]) : null, filters: readFilters(new URLSearchParams(query)) };
}

export function writeAddress(place: Place): string {
  const query = writeFilters(place.filters).toString();
  const path = place.eventId === null ? "/" : `/event/${encodeURIComponent(place.eventId)}`;
  return `#${path}${query ? `?${query}` : ""}`;
}

/** The operator token of a log-in link (`#token=…`), or null. */
export function tokenIn(hash: string): string | null {
  return new URLSearchParams(hash.replace(/^#\/?\??/, "")).get("token");
}

function split(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
