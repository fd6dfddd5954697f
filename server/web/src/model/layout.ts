/**
 * How a list of events is laid out: days, within them chunks of rows, with the quiet spells between bursts.
 *
 * A chunk is the unit that is drawn or left out as a whole, so that ten thousand events cost as much as a screenful.
 * Rows and chunks that come out as before are handed back as the very same objects: what is drawn from them stays. Pure.
 */
import type { TimelineEvent } from "../api/types";
import { dayKey, type Zone } from "./clock";
import type { EventList } from "./eventlist";
import { type Rail, rails } from "./rails";

/** One row: the event, its cause where that is on the page too, and how long it had been quiet until the row above. */
export interface Row {
  event: TimelineEvent;
  cause: TimelineEvent | null;
  quietUs: number | null;
  rail: Rail;
}

export interface Chunk {
  key: string;
  rows: readonly Row[];
}

export interface Day {
  key: string;
  tsUs: number;
  count: number;
  chunks: readonly Chunk[];
}

export interface Layout {
  days: readonly Day[];
  lanes: number;
  rowOf: ReadonlyMap<string, Row>;
  chunkOf: ReadonlyMap<string, Chunk>;
}

export const EMPTY_LAYOUT: Layout = { days: [], lanes: 1, rowOf: new Map(), chunkOf: new Map() };

export const CHUNK_ROWS = 40;
const QUIET_US = 60_000_000;

export function layOut(list: EventList, zone: Zone, before: Layout): Layout {
  const { events } = list;
  const keys = events.map((event) => dayKey(event.ts_us, zone));
  const rows = rowsOf(events, keys, before);
  const days: { key: string; tsUs: number; count: number; chunks: { key: string; rows: Row[] }[] }[] = [];
  rows.forEach((row, index) => {
    const key = keys[index] as string;
    let day = days.at(-1);
    if (day?.key !== key) {
      day = { key, tsUs: row.event.ts_us, count: 0, chunks: [] };
      days.push(day);
    }
    day.count += 1;
    const chunkKey = `${key}/${Math.floor((list.tail + events.length - 1 - index) / CHUNK_ROWS)}`;
    const chunk = day.chunks.at(-1);
    if (chunk?.key === chunkKey) chunk.rows.push(row);
    else day.chunks.push({ key: chunkKey, rows: [row] });
  });
  const chunkOf = new Map<string, Chunk>();
  const reused = days.map((day) => ({
    ...day,
    chunks: day.chunks.map((chunk) => {
      const kept = reuse(chunk, before.chunkOf.get(chunk.key));
      chunkOf.set(kept.key, kept);
      return kept;
    }),
  }));
  const lanes = rows.reduce((most, { rail }) => Math.max(most, rail.lane + 1, ...rail.passes.map((l) => l + 1)), 1);
  return { days: reused, lanes, rowOf: new Map(rows.map((row) => [row.event.id, row])), chunkOf };
}

function rowsOf(events: readonly TimelineEvent[], keys: readonly string[], before: Layout): Row[] {
  const byId = new Map(events.map((event) => [event.id, event]));
  const breaks = new Set(keys.flatMap((key, index) => (index > 0 && key !== keys[index - 1] ? [index] : [])));
  const railOf = rails(events, breaks);
  return events.map((event, index) => {
    const above = breaks.has(index) ? undefined : events[index - 1];
    const quietUs = above ? above.ts_us - event.ts_us : 0;
    const row: Row = {
      event,
      cause: event.cause === null ? null : (byId.get(event.cause) ?? null),
      quietUs: quietUs >= QUIET_US ? quietUs : null,
      rail: railOf[index] as Rail,
    };
    const old = before.rowOf.get(event.id);
    return old && sameRow(old, row) ? old : row;
  });
}

function sameRow(a: Row, b: Row): boolean {
  return (
    a.event === b.event &&
    a.cause === b.cause &&
    a.quietUs === b.quietUs &&
    a.rail.lane === b.rail.lane &&
    a.rail.up === b.rail.up &&
    a.rail.down === b.rail.down &&
    a.rail.passes.length === b.rail.passes.length &&
    a.rail.passes.every((lane, index) => lane === b.rail.passes[index])
  );
}

function reuse(chunk: Chunk, old: Chunk | undefined): Chunk {
  const same = old?.rows.length === chunk.rows.length && old.rows.every((row, index) => row === chunk.rows[index]);
  return same ? old : chunk;
}
