/** The list of events: days with chunks of rows, older pages at its end, new events at its head. */
import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { dayName, nearDay, zoneName } from "../model/clock";
import type { Day } from "../model/layout";
import { moveToEnd } from "../state/cursor";
import { nowUs } from "../state/now";
import { filters } from "../state/place";
import { zone } from "../state/prefs";
import {
  atTop,
  layout,
  list,
  loadError,
  loading,
  loadOlder,
  older,
  paused,
  release,
  reload,
  waitingCount,
} from "../state/timeline";
import { ChunkView } from "./chunk";
import { EmptyTimeline } from "./empty";
import { ArrowUpIcon } from "./icons";

/** Older pages are asked for when the end of the list is this near. */
const AHEAD_PX = "800px";
/** The list counts as looked at from its head while it is scrolled by less than this. */
const HEAD_PX = 80;
/** The newest chunk may hold a single row; two fill a window. */
const HEAD_CHUNKS = 2;
export const SCROLLER_ID = "scroller";

export function Timeline({ scroller }: { scroller: RefObject<HTMLElement> }) {
  useHeadWatch(scroller);
  useEffect(() => scroller.current?.scrollTo({ top: 0 }), [scroller, filters.value]);
  const { days, lanes } = layout.value;
  const empty = days.length === 0;
  return (
    <section class="timeline" aria-label="Timeline" aria-busy={loading.value} style={{ "--lanes": lanes }}>
      <NewEvents scroller={scroller} />
      {loadError.value !== null && <LoadError message={loadError.value} />}
      {empty && loading.value && <Skeleton />}
      {empty && !loading.value && loadError.value === null && <EmptyTimeline />}
      {days.map((day, index) => (
        <DayView key={day.key} day={day} headChunks={index === 0 ? HEAD_CHUNKS : 0} />
      ))}
      {!empty && <Foot scroller={scroller} />}
    </section>
  );
}

function DayView({ day, headChunks }: { day: Day; headChunks: number }) {
  const near = nearDay(day.tsUs, nowUs.value, zone.value);
  const words = dayName(day.tsUs, zone.value);
  return (
    <section class="day" aria-label={words}>
      <h2 class="day-name">
        {near && <b>{near}</b>}
        <span>{words}</span>
        <span class="day-zone">{zoneName(zone.value, day.tsUs)}</span>
      </h2>
      <ol class="rows">
        {day.chunks.map((chunk, index) => (
          <ChunkView key={chunk.key} chunk={chunk} atHead={index < headChunks} />
        ))}
      </ol>
    </section>
  );
}

/** Lets waiting events in when the reader comes back to the head of the list. */
function useHeadWatch(scroller: RefObject<HTMLElement>): void {
  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const watch = () => {
      const top = element.scrollTop < HEAD_PX;
      if (top === atTop.peek()) return;
      atTop.value = top;
      if (top && !paused.peek()) release();
    };
    watch();
    element.addEventListener("scroll", watch, { passive: true });
    return () => element.removeEventListener("scroll", watch);
  }, [scroller]);
}

function NewEvents({ scroller }: { scroller: RefObject<HTMLElement> }) {
  const count = waitingCount.value;
  if (count === 0 || paused.value) return null;
  return (
    <div class="new-events">
      <button
        type="button"
        onClick={() => {
          release();
          scroller.current?.scrollTo({ top: 0 });
          moveToEnd("first");
        }}
      >
        <ArrowUpIcon /> {count} new {count === 1 ? "event" : "events"}
      </button>
    </div>
  );
}

function LoadError({ message }: { message: string }) {
  return (
    <div class="notice bad" role="alert">
      <span>{message}</span>
      <button type="button" class="button" onClick={reload}>
        Try again
      </button>
    </div>
  );
}

function Foot({ scroller }: { scroller: RefObject<HTMLElement> }) {
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (end.current === null) return;
    const watch = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting) && older.peek() === "more") void loadOlder();
      },
      { root: scroller.current, rootMargin: `0px 0px ${AHEAD_PX} 0px` },
    );
    watch.observe(end.current);
    return () => watch.disconnect();
  }, [scroller, list.value.events.length]);

  return (
    <div ref={end} class="foot">
      {older.value === "end" ? (
        <span class="dim">Nothing older that matches is stored.</span>
      ) : (
        <button
          type="button"
          class="button"
          disabled={older.value === "loading"}
          onClick={() => {
            if (older.peek() === "failed") older.value = "more";
            void loadOlder();
          }}
        >
          {older.value === "loading" ? "Loading older events…" : "Load older events"}
        </button>
      )}
    </div>
  );
}

function Skeleton() {
  return (
    <div class="skeleton" aria-hidden="true">
      {[62, 78, 44, 70, 52, 66].map((width) => (
        <i key={width} style={{ width: `${width}%` }} />
      ))}
    </div>
  );
}
