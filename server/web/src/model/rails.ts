/** The thin lines that join events of one chain where they stand near each other on the timeline. Pure. */
import type { TimelineEvent } from "../api/types";

/** How one row's rail is drawn: its own node's lane, whether a line leads up or down from it, and lines that pass. */
export interface Rail {
  lane: number;
  up: boolean;
  down: boolean;
  passes: readonly number[];
}

export const MAX_LANES = 3;

/** Rows farther apart than this are not joined: a long line says less than the words "after …". */
const MAX_REACH = 6;

interface Segment {
  rows: number[];
}

/** One rail for each event of a list, newest first; `breaks` are the rows that no line may cross from above. */
export function rails(events: readonly TimelineEvent[], breaks: ReadonlySet<number>): Rail[] {
  const segmentOf = new Map<number, Segment>();
  for (const segment of segments(events, breaks)) {
    for (const row of segment.rows) segmentOf.set(row, segment);
  }
  const open = new Map<Segment, number>();
  return events.map((_, row) => {
    const segment = segmentOf.get(row);
    if (segment === undefined) {
      return { lane: freeLane(open) ?? 0, up: false, down: false, passes: [...open.values()] };
    }
    const lane = open.get(segment) ?? freeLane(open);
    if (lane === undefined) return { lane: MAX_LANES - 1, up: false, down: false, passes: [...open.values()] };
    const up = open.has(segment);
    const down = row !== segment.rows.at(-1);
    const passes = [...open].filter(([other]) => other !== segment).map(([, passing]) => passing);
    if (down) open.set(segment, lane);
    else open.delete(segment);
    return { lane, up, down, passes };
  });
}

function segments(events: readonly TimelineEvent[], breaks: ReadonlySet<number>): Segment[] {
  const rootOf = roots(events);
  const last = new Map<string, Segment>();
  const found: Segment[] = [];
  let section = 0;
  const sectionOf = events.map((_, row) => (breaks.has(row) ? ++section : section));
  events.forEach((event, row) => {
    const root = rootOf.get(event.id) ?? event.id;
    const before = last.get(root);
    const previous = before?.rows.at(-1);
    if (before && previous !== undefined && row - previous <= MAX_REACH && sectionOf[row] === sectionOf[previous]) {
      before.rows.push(row);
      return;
    }
    const segment = { rows: [row] };
    last.set(root, segment);
    found.push(segment);
  });
  return found.filter((segment) => segment.rows.length > 1);
}

/** The first cause of each event, as far as causes are in the list; a cause that is not still names its chain. */
function roots(events: readonly TimelineEvent[]): Map<string, string> {
  const causeOf = new Map(events.map((event) => [event.id, event.cause]));
  const found = new Map<string, string>();
  for (const event of events) {
    const path: string[] = [];
    let at = event.id;
    while (!found.has(at) && !path.includes(at)) {
      path.push(at);
      const cause = causeOf.get(at);
      if (cause === null || cause === undefined) break;
      at = cause;
    }
    const root = found.get(at) ?? at;
    for (const id of path) found.set(id, root);
  }
  return found;
}

function freeLane(open: ReadonlyMap<Segment, number>): number | undefined {
  const taken = new Set(open.values());
  for (let lane = 0; lane < MAX_LANES; lane += 1) if (!taken.has(lane)) return lane;
  return undefined;
}
