/**
 * A chunk of rows, drawn only while it is near the window. Out of sight it is one empty element of the height that it
 * was measured at (or is likely to have), so that the list may hold ten thousand events at the price of a screenful.
 */
import { effect } from "@preact/signals";
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Chunk } from "../model/layout";
import { currentId, moves } from "../state/cursor";
import { RowView } from "./row";

const NEAR_PX = 1200;
const ROW_PX = 40;

type Report = (near: boolean, heightPx: number) => void;

const reports = new WeakMap<Element, Report>();
const observers = new WeakMap<Element, IntersectionObserver>();

interface Props {
  chunk: Chunk;
  /** Drawn at once and not only when it is found to be near: at the head of the list. */
  atHead: boolean;
}

export const ChunkView = memo(drawChunk, (before, after) => before.chunk === after.chunk);

function drawChunk({ chunk, atHead }: Props) {
  const element = useRef<HTMLLIElement>(null);
  const [near, setNear] = useState(atHead);
  const [height, setHeight] = useState<number | null>(null);
  const latest = useRef(chunk);
  latest.current = chunk;

  useEffect(() => {
    const watched = element.current;
    if (watched === null) return;
    const stopWatching = watchNear(watched, (isNear, heightPx) => {
      if (!isNear && watched.contains(document.activeElement)) return;
      if (!isNear) setHeight(heightPx);
      setNear(isNear);
    });
    const stopFollowing = effect(() => {
      if (moves.value > 0 && latest.current.rows.some((row) => row.event.id === currentId.peek())) setNear(true);
    });
    return () => {
      stopWatching();
      stopFollowing();
    };
  }, []);

  return (
    <li ref={element} class="chunk" style={{ height: near ? "" : `${height ?? chunk.rows.length * ROW_PX}px` }}>
      {near && (
        <ol>
          {chunk.rows.map((row) => (
            <RowView key={row.event.id} row={row} />
          ))}
        </ol>
      )}
    </li>
  );
}

/** Reports when the element comes near the visible part of its scroller, and when it leaves. One observer serves all. */
function watchNear(watched: Element, report: Report): () => void {
  const scroller = watched.closest(".scroller");
  if (scroller === null) return () => undefined;
  let observer = observers.get(scroller);
  if (observer === undefined) {
    observer = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) reports.get(entry.target)?.(entry.isIntersecting, entry.boundingClientRect.height);
      },
      { root: scroller, rootMargin: `${NEAR_PX}px 0px` },
    );
    observers.set(scroller, observer);
  }
  reports.set(watched, report);
  observer.observe(watched);
  return () => observer.unobserve(watched);
}
