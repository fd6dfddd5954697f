/** The causal chain of the event that is open, kept up to date while effects still arrive. */
import { effect, signal } from "@preact/signals";
import { ApiError, fetchChain } from "../api/client";
import type { Chain, TimelineEvent } from "../api/types";
import { openEventId } from "./place";
import { sessionEnded } from "./session";

const GROW_MS = 200;
const MAX_RECENT = 64;

export const chain = signal<Chain | null>(null);
export const chainError = signal<{ status: number; message: string } | null>(null);

let request = new AbortController();
let growTimer: ReturnType<typeof setTimeout> | undefined;
/** Live events of the last moments: one that is stored while the chain is being read is looked at once more. */
let recent: TimelineEvent[] = [];

/** Follows the open event until the signal ends it. */
export function watchChain(until: AbortSignal): void {
  const stop = effect(() => {
    const id = openEventId.value;
    request.abort();
    clearTimeout(growTimer);
    chainError.value = null;
    if (id === null) chain.value = null;
    else void load(id);
  });
  until.addEventListener("abort", () => {
    stop();
    request.abort();
    clearTimeout(growTimer);
    chain.value = null;
  });
}

/** Loads the chain again when an event came in that belongs to it: an effect of its own, or a cause that was missing. */
export function growChain(event: TimelineEvent): void {
  const shown = chain.peek();
  if (openEventId.peek() !== null) recent = [...recent.slice(1 - MAX_RECENT), event];
  if (shown === null || shown.truncated || shown.events.some((known) => known.id === event.id)) return;
  const belongs = shown.missing.includes(event.id) || shown.events.some((known) => known.id === event.cause);
  if (!belongs) return;
  clearTimeout(growTimer);
  growTimer = setTimeout(() => void load(shown.id), GROW_MS);
}

export function reloadChain(): void {
  const id = openEventId.peek();
  if (id !== null) void load(id);
}

async function load(id: string): Promise<void> {
  request.abort();
  request = new AbortController();
  const { signal: aborted } = request;
  try {
    const loaded = await fetchChain(id, aborted);
    if (aborted.aborted) return;
    chain.value = loaded;
    chainError.value = null;
    const again = recent;
    recent = [];
    for (const event of again) growChain(event);
    recent = [];
  } catch (error) {
    if (aborted.aborted) return;
    if (!(error instanceof ApiError)) throw error;
    if (error.unauthorized) sessionEnded();
    else chainError.value = { status: error.status, message: error.message };
  }
}
