/**
 * The timeline that is on the page: its newest page, older pages as they are asked for, and what the live stream brings.
 *
 * New events wait while the reader has paused the timeline or scrolled away from its top, so that nothing moves under
 * the eyes; `release` lets them in. What arrives in a rush is put in together, a few times a second.
 */
import { batch, computed, effect, signal, untracked } from "@preact/signals";
import { ApiError, fetchTimeline } from "../api/client";
import { openStream, type Stream } from "../api/stream";
import type { TimelineEvent } from "../api/types";
import { EMPTY_LIST, type EventList, insert, keepNewest } from "../model/eventlist";
import { type Filters, isLive, streamFilters, writeFilters } from "../model/filters";
import { EMPTY_LAYOUT, type Layout, layOut } from "../model/layout";
import { growChain } from "./chain";
import { hostsHeard } from "./hosts";
import { filters } from "./place";
import { zone } from "./prefs";
import { sessionEnded } from "./session";

export type Connection = "connecting" | "live" | "down";

/** Events that stay in memory while the newest are watched; older ones come back by loading older pages. */
export const KEPT_EVENTS = 5_000;
const PAGE = 100;
const FLUSH_MS = 120;
/** In a rush, events are let in less often, and without a welcome for each. */
const RUSH_EVENTS = 20;
const RUSH_FLUSH_MS = 600;
const MAX_WAITING = 2_000;
const STALE_MS = 60_000;

export const list = signal<EventList>(EMPTY_LIST);
export const loading = signal(true);
export const loadError = signal<string | null>(null);
export const older = signal<"more" | "loading" | "end" | "failed">("more");
export const connection = signal<Connection>("connecting");
export const paused = signal(false);
/** Whether the reader looks at the newest events; the view says so. */
export const atTop = signal(true);
export const waitingCount = signal(0);
/** Ids that came in live, for a short welcome. */
export const arrived = signal<ReadonlySet<string>>(new Set());

let previous: Layout = EMPTY_LAYOUT;
export const layout = computed<Layout>(() => {
  previous = layOut(list.value, zone.value, previous);
  return previous;
});

let stream: Stream | null = null;
let cursor: string | null = null;
let waiting: TimelineEvent[] = [];
let waitingOverflowed = false;
let rush = false;
let flushTimer: ReturnType<typeof setTimeout> | undefined;
let request = new AbortController();

/** Follows the filters until the signal ends it. */
export function watchTimeline(until: AbortSignal): void {
  const stop = effect(() => {
    const wanted = filters.value;
    untracked(() => start(wanted));
  });
  const wake = () => {
    if (!document.hidden && stream !== null && stream.quietMs() > STALE_MS) stream.renew();
  };
  addEventListener("online", wake);
  document.addEventListener("visibilitychange", wake);
  until.addEventListener("abort", () => {
    stop();
    halt();
    removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", wake);
  });
}

/** Lets the events in that wait. */
export function release(): void {
  clearTimeout(flushTimer);
  flushTimer = undefined;
  if (waitingOverflowed) {
    forgetWaiting();
    void loadNewest(filters.peek());
    return;
  }
  const incoming = waiting;
  forgetWaiting();
  rush = incoming.length > RUSH_EVENTS;
  if (incoming.length === 0) return;
  batch(() => {
    const grown = insert(list.peek(), incoming);
    const kept = keepNewest(grown, Math.max(KEPT_EVENTS, list.peek().events.length));
    if (kept !== grown) {
      cursor = null;
      older.value = "more";
    }
    list.value = kept;
    arrived.value = new Set(rush ? [] : incoming.map((event) => event.id));
  });
}

export function togglePause(): void {
  paused.value = !paused.peek();
  if (!paused.peek()) release();
}

export async function loadOlder(): Promise<void> {
  if (older.peek() === "loading" || older.peek() === "end" || loading.peek()) return;
  older.value = "loading";
  const { signal: aborted } = request;
  try {
    const page = await fetchTimeline(olderQuery(), aborted);
    if (aborted.aborted) return;
    batch(() => {
      list.value = insert(list.peek(), page.events);
      cursor = page.next_cursor;
      older.value = cursor === null ? "end" : "more";
    });
  } catch (error) {
    if (aborted.aborted) return;
    failed(error);
    older.value = "failed";
  }
}

/** Asks again for the newest page, as after an error. */
export function reload(): void {
  start(filters.peek());
}

function start(wanted: Filters): void {
  halt();
  batch(() => {
    list.value = EMPTY_LIST;
    arrived.value = new Set();
    connection.value = "connecting";
  });
  if (isLive(wanted)) {
    stream = openStream(streamFilters(wanted), {
      onOpen: () => {
        connection.value = "live";
      },
      onEvent: receive,
      onHosts: hostsHeard,
      onDown: () => {
        connection.value = "down";
      },
      onGap: () => void loadNewest(wanted),
      onLoggedOut: sessionEnded,
    });
  }
  void loadNewest(wanted);
}

function halt(): void {
  request.abort();
  request = new AbortController();
  stream?.close();
  stream = null;
  clearTimeout(flushTimer);
  flushTimer = undefined;
  forgetWaiting();
}

async function loadNewest(wanted: Filters): Promise<void> {
  request.abort();
  request = new AbortController();
  const { signal: aborted } = request;
  loading.value = true;
  loadError.value = null;
  const query = writeFilters(wanted);
  query.set("limit", String(PAGE));
  try {
    const page = await fetchTimeline(query, aborted);
    if (aborted.aborted) return;
    cursor = page.next_cursor;
    batch(() => {
      list.value = insert(EMPTY_LIST, page.events);
      older.value = cursor === null ? "end" : "more";
      loading.value = false;
    });
    scheduleFlush();
  } catch (error) {
    if (aborted.aborted) return;
    failed(error);
    loading.value = false;
  }
}

function receive(event: TimelineEvent): void {
  growChain(event);
  if (list.peek().ids.has(event.id)) return;
  waiting.push(event);
  if (waiting.length > MAX_WAITING) {
    waiting = waiting.slice(-MAX_WAITING / 2);
    waitingOverflowed = true;
  }
  scheduleFlush();
}

function scheduleFlush(): void {
  flushTimer ??= setTimeout(
    () => {
      flushTimer = undefined;
      if (loading.peek()) return;
      if (paused.peek() || !atTop.peek()) waitingCount.value = waiting.length;
      else release();
    },
    rush ? RUSH_FLUSH_MS : FLUSH_MS,
  );
}

function forgetWaiting(): void {
  waiting = [];
  waitingOverflowed = false;
  waitingCount.value = 0;
}

/** Without a cursor (older events were let go) the next page is everything up to the oldest that is kept. */
function olderQuery(): URLSearchParams {
  const query = writeFilters(filters.peek());
  query.set("limit", String(PAGE));
  const oldest = list.peek().events.at(-1);
  if (cursor !== null) query.set("cursor", cursor);
  else if (oldest) query.set("to", String(oldest.ts_us + 1));
  return query;
}

function failed(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  if (error.unauthorized) sessionEnded();
  else loadError.value = error.message;
}
