/** One event on the timeline. */
import { useComputed, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { TimelineEvent } from "../api/types";
import { fullUtc, milliseconds, timeOfDay } from "../model/clock";
import { toggled } from "../model/filters";
import { isGood, kindLabel } from "../model/kinds";
import type { Row } from "../model/layout";
import { exactGap, gap, roughSpan } from "../model/units";
import { currentId, moves, tabStop } from "../state/cursor";
import { filters, openEvent, openEventId, setFilters } from "../state/place";
import { zone } from "../state/prefs";
import { arrived } from "../state/timeline";
import { toneOf } from "./glyph";
import { RailCell } from "./rail";

export function RowView({ row }: { row: Row }) {
  const { event, cause } = row;
  const open = useComputed(() => openEventId.value === event.id).value;
  const tabs = useComputed(() => tabStop.value === event.id).value;
  const unfolded = useSignal(false);
  const welcome = useRef(arrived.peek().has(event.id));
  const tone = toneOf(event.kind, event.severity);
  const link = useFocusWhenCurrent(event.id);

  return (
    <>
      {row.quietUs !== null && <Quiet us={row.quietUs} row={row} />}
      <li
        id={`e-${event.id}`}
        class={`row ${tone}${open ? " open" : ""}${welcome.current ? " arrived" : ""}${isGood(event.kind) ? " good" : ""}`}
      >
        <time class="row-time" dateTime={event.ts} title={fullUtc(event.ts_us)}>
          {timeOfDay(event.ts_us, zone.value)}
          <span class="ms">.{milliseconds(event.ts_us)}</span>
        </time>
        <RailCell rail={row.rail} tone={tone} />
        <div class="row-kind">
          <span class="kind">{kindLabel(event.kind)}</span>
          {cause && (
            <Gap
              event={event}
              cause={cause}
              unfolded={unfolded.value}
              tabs={tabs}
              toggle={() => (unfolded.value = !unfolded.peek())}
            />
          )}
        </div>
        <div class="row-say">
          <a
            ref={link}
            class="row-link"
            href={`#/event/${event.id}`}
            tabIndex={tabs ? 0 : -1}
            aria-current={open ? "true" : undefined}
            onFocus={() => {
              currentId.value = event.id;
            }}
            onClick={(click) => {
              if (click.metaKey || click.ctrlKey || click.shiftKey || click.button !== 0) return;
              click.preventDefault();
              currentId.value = event.id;
              openEvent(event.id);
            }}
          >
            {event.text}
          </a>
          {unfolded.value && cause && <GapDetail event={event} cause={cause} />}
        </div>
        <Tags event={event} tabs={tabs} />
      </li>
    </>
  );
}

let lastMove = 0;

/** The row that the keyboard moved to takes the focus and comes into view, once for each move. */
function useFocusWhenCurrent(id: string) {
  const link = useRef<HTMLAnchorElement>(null);
  const moved = useComputed(() => (currentId.value === id ? moves.value : 0)).value;
  useLayoutEffect(() => {
    if (moved <= lastMove) return;
    lastMove = moved;
    link.current?.focus({ preventScroll: true });
    link.current?.closest("li")?.scrollIntoView({ block: "nearest" });
  }, [moved]);
  return link;
}

interface GapProps {
  event: TimelineEvent;
  cause: TimelineEvent;
  unfolded: boolean;
  tabs: boolean;
  toggle: () => void;
}

function Gap({ event, cause, unfolded, tabs, toggle }: GapProps) {
  const us = event.ts_us - cause.ts_us;
  return (
    <button
      type="button"
      class="gap"
      tabIndex={tabs ? 0 : -1}
      aria-expanded={unfolded}
      title={`${exactGap(us)} after its cause (${kindLabel(cause.kind)})`}
      onClick={toggle}
    >
      {gap(us)}
    </button>
  );
}

function GapDetail({ event, cause }: { event: TimelineEvent; cause: TimelineEvent }) {
  return (
    <p class="gap-detail">
      <span class="mono">{exactGap(event.ts_us - cause.ts_us)}</span> after{" "}
      <button
        type="button"
        class="plain link"
        onClick={() => {
          currentId.value = cause.id;
          moves.value += 1;
        }}
      >
        {kindLabel(cause.kind)} at {timeOfDay(cause.ts_us, zone.value)}.{milliseconds(cause.ts_us)}
      </button>
      : {cause.text}
    </p>
  );
}

function Tags({ event, tabs }: { event: TimelineEvent; tabs: boolean }) {
  const { host, service, worker } = event;
  const tabIndex = tabs ? 0 : -1;
  return (
    <div class="tags">
      {service !== null && (
        <button
          type="button"
          class="tag service"
          tabIndex={tabIndex}
          title={`Service ${service}: show or stop showing only its events`}
          onClick={() => setFilters({ services: toggled(filters.peek().services, service) })}
        >
          {service}
        </button>
      )}
      {worker !== null && (
        <span class="tag slot-tag" title={`Worker slot ${worker.slot}, generation ${worker.generation}`}>
          w{worker.slot}
        </span>
      )}
      {worker !== null && (
        <span class="tag pid" title={`Process ${worker.pid}`}>
          {worker.pid}
        </span>
      )}
      <button
        type="button"
        class="tag host"
        tabIndex={tabIndex}
        title={`Host ${host}: show or stop showing only its events`}
        onClick={() => setFilters({ hosts: toggled(filters.peek().hosts, host) })}
      >
        {host}
      </button>
    </div>
  );
}

/** The quiet spell between two bursts of events. */
function Quiet({ us, row: { rail } }: { us: number; row: Row }) {
  const passes = rail.up ? [...rail.passes, rail.lane] : rail.passes;
  return (
    <li class="quiet-spell">
      <RailCell rail={{ lane: -1, up: false, down: false, passes }} tone="info" />
      <span>{roughSpan(us)} quiet</span>
    </li>
  );
}
