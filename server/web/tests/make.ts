/** Events for tests. */
import type { Chain, TimelineEvent } from "../src/api/types";

export const T0 = 1_795_395_069_000_000;

export function made(id: string, offsetUs: number, more: Partial<TimelineEvent> = {}): TimelineEvent {
  const ts_us = T0 + offsetUs;
  return {
    id,
    ts_us,
    ts: new Date(ts_us / 1_000).toISOString(),
    host: "web-3",
    kind: "worker.exited",
    severity: "info",
    text: `event ${id}`,
    service: "shop-web",
    worker: null,
    release: null,
    cause: null,
    evidence: [],
    attrs: {},
    ...more,
  };
}

/** A chain from pairs `effect: cause`; events come in the order in which they are named. */
export function madeChain(causes: Record<string, string | null>): Chain {
  const events = Object.entries(causes).map(([id, cause], index) => made(id, index * 1_000, { cause }));
  const known = new Set(events.map((event) => event.id));
  const links = events.flatMap(({ id, cause }) =>
    cause !== null && known.has(cause) ? [{ cause, effect: id, gap_us: 1_000 }] : [],
  );
  const missing = events.flatMap(({ cause }) => (cause !== null && !known.has(cause) ? [cause] : []));
  return { id: events[0]?.id ?? "", root: events[0]?.id ?? "", events, links, missing, truncated: false };
}
