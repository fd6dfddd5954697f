/** What the reader chose and the browser remembers: theme, time zone, whether the hosts are unfolded. */
import { effect, type Signal, signal } from "@preact/signals";
import type { Zone } from "../model/clock";

export type Theme = "auto" | "light" | "dark";

export const theme = remembered<Theme>("reflex.theme", "auto", ["auto", "light", "dark"]);
export const zone = remembered<Zone>("reflex.zone", "local", ["local", "utc"]);
export const hostsView = remembered<"auto" | "open" | "folded">("reflex.hosts", "auto", ["auto", "open", "folded"]);

/** Keeps the page's theme as chosen; `auto` leaves it to the system. */
export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
  });
}

function remembered<T extends string>(key: string, otherwise: T, allowed: readonly T[]): Signal<T> {
  const stored = read(key);
  const chosen = signal<T>(allowed.find((value) => value === stored) ?? otherwise);
  effect(() => write(key, chosen.value));
  return chosen;
}

/** Storage that the browser forbids only means that a choice is not remembered. */
function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    return;
  }
}
