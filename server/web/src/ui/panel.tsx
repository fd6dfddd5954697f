/** The causal chain of one event: a panel beside the timeline, or a sheet over it on a narrow screen. */
import { Fragment } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Chain } from "../api/types";
import { chainTree } from "../model/chaintree";
import { span } from "../model/units";
import { chain, chainError, reloadChain } from "../state/chain";
import { returnFocus } from "../state/cursor";
import { linkTo, openEvent, openEventId } from "../state/place";
import { ChainNodeView, MissingCause } from "./chainnode";
import { CopyButton } from "./copy";
import { BracesIcon, CloseIcon, LinkIcon } from "./icons";
import { isSheet } from "./media";

export const COPY_LINK_ID = "copy-link";

export function ChainPanel() {
  const id = openEventId.value;
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    if (id === null || !isSheet.peek()) return;
    panel.current?.focus();
    return returnFocus;
  }, [id !== null]);
  if (id === null) return null;
  const shown = chain.value?.events.some((event) => event.id === id) ? chain.value : null;
  return (
    <aside
      ref={panel}
      class="panel"
      tabIndex={-1}
      aria-label="Causal chain"
      {...(isSheet.value ? { role: "dialog", "aria-modal": true } : {})}
    >
      <header class="panel-head">
        <div>
          <h2>Causal chain</h2>
          <p class="dim" aria-live="polite">
            {shown && summary(shown)}
          </p>
        </div>
        {shown && (
          <>
            <CopyButton id={COPY_LINK_ID} icon={<LinkIcon />} label="Link" text={() => linkTo(id)} />
            <CopyButton icon={<BracesIcon />} label="JSON" text={() => JSON.stringify(shown, null, 2)} />
          </>
        )}
        <button
          type="button"
          class="button icon-only"
          title="Close (Esc)"
          aria-label="Close the chain"
          onClick={() => openEvent(null)}
        >
          <CloseIcon />
        </button>
      </header>
      <div class="panel-body" key={shown?.root ?? id}>
        {shown ? <ChainGraph chain={shown} /> : <NotShown id={id} />}
      </div>
    </aside>
  );
}

function summary(shown: Chain): string {
  const { lengthUs } = chainTree(shown);
  const count = shown.events.length;
  if (count === 1) return "1 event: nothing that caused it or followed from it is known";
  return `${count} events in ${span(lengthUs)}`;
}

function ChainGraph({ chain: shown }: { chain: Chain }) {
  const tree = chainTree(shown);
  const body = useRef<HTMLOListElement>(null);
  useEffect(() => {
    bringUp(body.current?.querySelector(".asked") ?? null);
  }, [shown.id, shown.root]);
  return (
    <>
      <ol ref={body} class="graph" style={{ "--lanes": tree.lanes }}>
        {tree.nodes.map((node, index) => (
          <Fragment key={node.event.id}>
            {node.missing !== null && <MissingCause id={node.missing} />}
            <ChainNodeView node={node} asked={node.event.id === openEventId.value} above={tree.nodes[index - 1]} />
          </Fragment>
        ))}
      </ol>
      {shown.truncated && (
        <p class="notice">The chain is longer than what is drawn here: only its first events are shown.</p>
      )}
    </>
  );
}

/** Scrolls only where the asked event begins outside the upper half of the panel, so that its causes stay in view. */
function bringUp(asked: Element | null): void {
  const body = asked?.closest(".panel-body");
  if (!asked || !body) return;
  const [top, frame] = [asked.getBoundingClientRect().top, body.getBoundingClientRect()];
  if (top < frame.top || top > frame.top + frame.height / 2) asked.scrollIntoView({ block: "start" });
}

function NotShown({ id }: { id: string }) {
  const error = chainError.value;
  if (error === null) {
    return (
      <div class="skeleton" aria-hidden="true">
        <i />
        <i />
        <i />
      </div>
    );
  }
  return (
    <div class="empty" role="alert">
      <h2>{error.status === 404 ? "This event is not stored" : "The chain could not be loaded"}</h2>
      <p>{error.status === 404 ? "It may be older than what the server keeps, or still on its way." : error.message}</p>
      <p class="mono dim">{id}</p>
      <p class="actions">
        <button type="button" class="button" onClick={reloadChain}>
          Try again
        </button>
      </p>
    </div>
  );
}
