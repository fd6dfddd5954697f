/** How a causal chain is drawn: one node below the other, a cause above its effects, branches to the right. Pure. */
import type { Chain, TimelineEvent } from "../api/types";

/**
 * A node of the drawing. `lane` counts from 0 at the left. `from` is the lane that its line comes from (null for a
 * root), `passes` are the lanes whose lines run past it, `below` is whether a line leaves it downwards.
 */
export interface ChainNode {
  event: TimelineEvent;
  gapUs: number | null;
  lane: number;
  from: number | null;
  passes: readonly number[];
  below: boolean;
  /** The named cause that is not stored, or null. */
  missing: string | null;
}

export interface ChainTree {
  nodes: readonly ChainNode[];
  lanes: number;
  /** Microseconds from the first event to the last. */
  lengthUs: number;
}

/** Deeper branches share this lane: a phone has no room for more. */
const LAST_LANE = 3;

export function chainTree(chain: Chain): ChainTree {
  const byId = new Map(chain.events.map((event) => [event.id, event]));
  const effects = new Map<string, { event: TimelineEvent; gapUs: number }[]>();
  const caused = new Set<string>();
  for (const link of chain.links) {
    const event = byId.get(link.effect);
    if (event === undefined || !byId.has(link.cause) || caused.has(link.effect)) continue;
    caused.add(link.effect);
    effects.set(link.cause, [...(effects.get(link.cause) ?? []), { event, gapUs: link.gap_us }]);
  }
  const nodes: ChainNode[] = [];
  const missing = new Set(chain.missing);

  function draw(event: TimelineEvent, gapUs: number | null, lane: number, from: number | null, passes: number[]): void {
    const children = (effects.get(event.id) ?? []).sort((a, b) => a.event.ts_us - b.event.ts_us);
    const lost = event.cause !== null && missing.has(event.cause) ? event.cause : null;
    nodes.push({ event, gapUs, lane, from, passes, below: children.length > 0, missing: lost });
    const next = children.length > 1 ? Math.min(lane + 1, LAST_LANE) : lane;
    children.forEach((child, index) => {
      const open = children.length > 1 && index < children.length - 1 && next !== lane;
      draw(child.event, child.gapUs, next, lane, open ? [...passes, lane] : passes);
    });
  }

  for (const event of chain.events) if (!caused.has(event.id)) draw(event, null, 0, null, []);
  const times = chain.events.map((event) => event.ts_us);
  return {
    nodes,
    lanes: nodes.reduce((most, node) => Math.max(most, node.lane + 1), 1),
    lengthUs: times.length ? Math.max(...times) - Math.min(...times) : 0,
  };
}
