/** One event of a causal chain, with why we believe it and its numbers. */
import type { TimelineEvent } from "../api/types";
import type { ChainNode } from "../model/chaintree";
import { fullUtc, milliseconds, shortDay, timeOfDay } from "../model/clock";
import { facts, memoryPicture } from "../model/facts";
import { kindLabel } from "../model/kinds";
import { exactGap, gap } from "../model/units";
import { openEvent } from "../state/place";
import { zone } from "../state/prefs";
import { Glyph, toneOf } from "./glyph";
import { MemoryBar } from "./memorybar";
import { ReleaseLogReader } from "./releaselog";
import { SnapshotReader } from "./snapshot";

interface Props {
  node: ChainNode;
  asked: boolean;
  /** The node drawn above, whose place and service need not be said again. */
  above: ChainNode | undefined;
}

export function ChainNodeView({ node, asked, above }: Props) {
  const { event } = node;
  const tone = toneOf(event.kind, event.severity);
  const picture = memoryPicture(event.attrs);
  return (
    <li class={`chain-node ${tone}${asked ? " asked" : ""}`} aria-current={asked ? "true" : undefined}>
      <Lines node={node} />
      <span class="node" style={{ "--lane": node.lane }}>
        <Glyph tone={tone} />
      </span>
      <article class="card">
        <header>
          {node.gapUs !== null && (
            <span class="gap" title={`${exactGap(node.gapUs)} after its cause`}>
              {gap(node.gapUs)}
            </span>
          )}
          <button
            type="button"
            class="plain kind"
            title="Show this event's own details"
            onClick={() => openEvent(event.id, { replace: true })}
          >
            {kindLabel(event.kind)}
          </button>
          <time dateTime={event.ts} title={fullUtc(event.ts_us)}>
            <span class="dim">{shortDay(event.ts_us, zone.value)}</span> {timeOfDay(event.ts_us, zone.value)}
            <span class="ms">.{milliseconds(event.ts_us)}</span>
          </time>
        </header>
        <p class="sentence">{event.text}</p>
        {picture && <MemoryBar picture={picture} />}
        <Subject event={event} above={above?.event} />
        <Artifact event={event} />
        <Details event={event} open={asked} />
      </article>
    </li>
  );
}

/** What is too long for the event; which it is, its kind says. */
function Artifact({ event }: { event: TimelineEvent }) {
  const id = event.attrs.artifact;
  if (typeof id !== "string") return null;
  return event.kind.startsWith("release.") ? (
    <ReleaseLogReader key={id} id={id} />
  ) : (
    <SnapshotReader key={id} id={id} />
  );
}

/** The lines of the lanes: past this node, from its cause, and on to its effects. */
function Lines({ node }: { node: ChainNode }) {
  const branched = node.from !== null && node.from !== node.lane;
  return (
    <>
      {node.passes.map((lane) => (
        <i key={lane} class="line" style={{ "--lane": lane }} />
      ))}
      {node.from !== null && !branched && <i class="line above" style={{ "--lane": node.lane }} />}
      {branched && <i class="branch" style={{ "--lane": node.from as number }} />}
      {node.below && <i class="line below" style={{ "--lane": node.lane }} />}
    </>
  );
}

function Subject({ event, above }: { event: TimelineEvent; above: TimelineEvent | undefined }) {
  const { host, service, worker, release } = event;
  return (
    <p class="tags">
      {service !== null && service !== above?.service && <span class="tag service">{service}</span>}
      {worker !== null && (
        <>
          <span class="tag">worker {worker.slot}</span>
          <span class="tag">pid {worker.pid}</span>
          <span class="tag">generation {worker.generation}</span>
        </>
      )}
      {release !== null && release !== above?.release && <span class="tag">release {release}</span>}
      {host !== above?.host && <span class="tag">{host}</span>}
    </p>
  );
}

function Details({ event, open }: { event: TimelineEvent; open: boolean }) {
  const shown = facts(withoutSnapshot(event.attrs));
  if (event.evidence.length === 0 && shown.length === 0) return null;
  const counts = [
    event.evidence.length > 0 &&
      `${event.evidence.length} ${event.evidence.length === 1 ? "piece" : "pieces"} of evidence`,
    shown.length > 0 && `${shown.length} ${shown.length === 1 ? "fact" : "facts"}`,
  ];
  return (
    <details open={open}>
      <summary>{counts.filter(Boolean).join(", ")}</summary>
      {event.evidence.length > 0 && (
        <ul class="evidence" aria-label="Evidence">
          {event.evidence.map((item) => (
            <li key={`${item.source}/${item.fact}`}>
              <span class="source">{item.source}</span>
              <span>{item.fact}</span>
            </li>
          ))}
        </ul>
      )}
      <dl class="facts">
        {shown.map((fact) => (
          <div key={fact.name} class={fact.isListing ? "listing" : ""}>
            <dt>{fact.name}</dt>
            <dd title={fact.exact ?? undefined} class={fact.exact ? "exact" : ""}>
              {fact.value}
            </dd>
          </div>
        ))}
      </dl>
    </details>
  );
}

/** The reader shows what these are the beginning of. */
function withoutSnapshot(attrs: TimelineEvent["attrs"]): TimelineEvent["attrs"] {
  if (typeof attrs.artifact !== "string") return attrs;
  const { artifact: _id, stack: _stack, memory_map: _map, ...rest } = attrs;
  return rest;
}

/** The honest place of a cause that an event names and the server does not have. */
export function MissingCause({ id }: { id: string }) {
  return (
    <li class="chain-node missing">
      <span class="node" style={{ "--lane": 0 }}>
        <svg class="glyph info" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
          <circle class="ring" cx="8" cy="8" r="5.5" stroke-dasharray="2.5 2" />
        </svg>
      </span>
      <i class="line below dashed" style={{ "--lane": 0 }} />
      <article class="card">
        <p class="sentence">
          The cause of the next event is named but not stored here. It may still be on its way, or its record was lost
          with the agent's spool.
        </p>
        <p class="mono dim">{id}</p>
      </article>
    </li>
  );
}
