/** The events that the page holds: newest first, each once, whatever order they come in. Pure. */
import type { TimelineEvent } from "../api/types";

/**
 * `tail` is the place of the oldest event in a numbering that does not change when newer events come or older pages
 * are loaded: the newest page starts at 0, an older page counts down from there. Slices of the list that are cut by it
 * stay the same, so they need not be drawn again.
 */
export interface EventList {
  readonly events: readonly TimelineEvent[];
  readonly ids: ReadonlySet<string>;
  readonly tail: number;
}

export const EMPTY_LIST: EventList = { events: [], ids: new Set(), tail: 0 };

/** Puts events in, each where its time belongs; those that are there already stay as they are. */
export function insert(list: EventList, incoming: readonly TimelineEvent[]): EventList {
  const ids = new Set(list.ids);
  const fresh = incoming.filter((event) => !ids.has(event.id) && ids.add(event.id)).sort(newestFirst);
  if (fresh.length === 0) return list;
  const oldest = list.events.at(-1);
  const older = oldest ? fresh.filter((event) => newestFirst(oldest, event) < 0).length : 0;
  return { events: mergeSorted(fresh, list.events), ids, tail: list.tail - older };
}

/** Keeps the newest `limit` events. */
export function keepNewest(list: EventList, limit: number): EventList {
  if (list.events.length <= limit) return list;
  const events = list.events.slice(0, limit);
  const dropped = list.events.length - limit;
  return { events, ids: new Set(events.map((event) => event.id)), tail: list.tail + dropped };
}

/** Order by time, newest first; ids, which carry the time too, decide between equal times. */
export function newestFirst(a: TimelineEvent, b: TimelineEvent): number {
  return b.ts_us - a.ts_us || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);
}

function mergeSorted(a: readonly TimelineEvent[], b: readonly TimelineEvent[]): TimelineEvent[] {
  const merged: TimelineEvent[] = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    const [left, right] = [a[i] as TimelineEvent, b[j] as TimelineEvent];
    if (newestFirst(left, right) <= 0) {
      merged.push(left);
      i += 1;
    } else {
      merged.push(right);
      j += 1;
    }
  }
  return merged.concat(a.slice(i), b.slice(j));
}
