/** Where the reader is: the filters and the event whose chain is open, the same in the page and in the address bar. */
import { computed, signal } from "@preact/signals";
import { type Place, readAddress, tokenIn, writeAddress } from "../model/address";
import type { Filters } from "../model/filters";

export const place = signal<Place>(readAddress(location.hash));
export const filters = computed(() => place.value.filters, { name: "filters" });
export const openEventId = computed(() => place.value.eventId);

/** Follows the browser's back and forward buttons and links that are pasted into the address bar. */
export function followAddress(onToken: (token: string) => void): void {
  const follow = () => {
    const token = takeToken();
    if (token !== null) onToken(token);
    const next = readAddress(location.hash);
    const now = place.peek();
    const same = writeAddress(next) === writeAddress({ ...next, filters: now.filters });
    place.value = same ? { eventId: next.eventId, filters: now.filters } : next;
  };
  addEventListener("popstate", follow);
  addEventListener("hashchange", follow);
}

/** The token of a log-in link, taken out of the address bar and the history at once. */
export function takeToken(): string | null {
  const token = tokenIn(location.hash);
  if (token !== null) history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  return token;
}

/** Opens the chain of an event, or closes it with null. `replace` keeps the history short while somebody browses. */
export function openEvent(eventId: string | null, { replace = false } = {}): void {
  if (place.peek().eventId !== eventId) go({ ...place.peek(), eventId }, replace);
}

export function setFilters(change: Partial<Filters>, { replace = false } = {}): void {
  go({ ...place.peek(), filters: { ...place.peek().filters, ...change } }, replace);
}

/** A link to one event that can be given to somebody else. */
export function linkTo(eventId: string): string {
  return `${location.origin}${location.pathname}#/event/${encodeURIComponent(eventId)}`;
}

function go(next: Place, replace: boolean): void {
  const url = `${location.pathname}${location.search}${writeAddress(next)}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  place.value = next;
}
