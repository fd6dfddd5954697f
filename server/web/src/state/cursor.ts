/** Which row of the timeline the keyboard stands on, and how it moves. */
import { computed, effect, signal } from "@preact/signals";
import { openEvent, openEventId } from "./place";
import { list, loadOlder, older } from "./timeline";

export const currentId = signal<string | null>(null);
/** Rises with each keyboard move, so that the row takes the focus only then. */
export const moves = signal(0);

/** The one row that Tab reaches: the current one, or the first where that one is not in the list. */
export const tabStop = computed(() => {
  const { ids, events } = list.value;
  return currentId.value !== null && ids.has(currentId.value) ? currentId.value : (events[0]?.id ?? null);
});

const FOLLOW_MS = 120;
const NEAR_END = 5;
let followTimer: ReturnType<typeof setTimeout> | undefined;

/** Brings the open event's row into view when it was opened by a link and not from its row. Ends with the signal. */
export function followOpened(until: AbortSignal): void {
  let followed: string | null = null;
  const stop = effect(() => {
    const id = openEventId.value;
    if (id === followed || (id !== null && !list.value.ids.has(id))) return;
    followed = id;
    if (id === null || currentId.peek() === id) return;
    currentId.value = id;
    moves.value = moves.peek() + 1;
  });
  until.addEventListener("abort", stop);
}

/** Moves by `step` rows (positive is older). An open chain follows. */
export function move(step: number): void {
  const { events } = list.peek();
  const at = events.findIndex((event) => event.id === currentId.peek());
  const next = at < 0 ? 0 : Math.min(Math.max(at + step, 0), events.length - 1);
  goTo(next);
}

/** Gives the focus back to the current row, as after a sheet that covered it. */
export function returnFocus(): void {
  if (currentId.peek() !== null) moves.value += 1;
}

export function moveToEnd(end: "first" | "last"): void {
  goTo(end === "first" ? 0 : list.peek().events.length - 1);
}

function goTo(index: number): void {
  const { events } = list.peek();
  const event = events[index];
  if (event === undefined) return;
  currentId.value = event.id;
  moves.value += 1;
  if (events.length - index <= NEAR_END && older.peek() === "more") void loadOlder();
  clearTimeout(followTimer);
  if (openEventId.peek() !== null) {
    followTimer = setTimeout(() => openEvent(event.id, { replace: true }), FOLLOW_MS);
  }
}
