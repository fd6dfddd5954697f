/** What the keyboard does. */
import { currentId, move, moveToEnd } from "../state/cursor";
import { openEvent } from "../state/place";
import { release, togglePause } from "../state/timeline";
import { SEARCH_ID } from "./filterbar";
import { openHelp } from "./help";
import { COPY_LINK_ID } from "./panel";
import { SCROLLER_ID } from "./timeline";
import { nextTheme, toggleZone } from "./topbar";

const ACTIONS: Record<string, () => void> = {
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  g: toHead,
  Home: toHead,
  G: () => moveToEnd("last"),
  End: () => moveToEnd("last"),
  Enter: openCurrent,
  Escape: () => openEvent(null),
  "/": focusSearch,
  p: togglePause,
  c: () => document.getElementById(COPY_LINK_ID)?.click(),
  z: toggleZone,
  t: nextTheme,
  "?": openHelp,
};

export function listenToKeys(): () => void {
  addEventListener("keydown", pressed);
  return () => removeEventListener("keydown", pressed);
}

function pressed(key: KeyboardEvent): void {
  if (key.defaultPrevented || key.ctrlKey || key.metaKey || key.altKey) return;
  const target = key.target as HTMLElement;
  if (isTyping(target)) {
    if (key.key === "Escape") target.blur();
    return;
  }
  if (document.querySelector("dialog[open], :popover-open")) return;
  if (key.key === "Enter" && target.closest("a, button, summary, label")) return;
  const arrows = key.key.startsWith("Arrow") || key.key === "Home" || key.key === "End";
  if (arrows && target.closest(".panel, .topbar, .hosts, .filterbar")) return;
  const action = ACTIONS[key.key];
  if (action === undefined) return;
  key.preventDefault();
  action();
}

function isTyping(target: HTMLElement): boolean {
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

function toHead(): void {
  document.getElementById(SCROLLER_ID)?.scrollTo({ top: 0 });
  release();
  moveToEnd("first");
}

function openCurrent(): void {
  if (currentId.peek() !== null) openEvent(currentId.peek());
}

function focusSearch(): void {
  const field = document.getElementById(SEARCH_ID);
  if (field instanceof HTMLInputElement) {
    field.focus();
    field.select();
  }
}
