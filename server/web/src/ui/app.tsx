/** The whole page: log-in, or the timeline with its surroundings. */
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { watchChain } from "../state/chain";
import { followOpened } from "../state/cursor";
import { watchHosts } from "../state/hosts";
import { openEventId } from "../state/place";
import { session } from "../state/session";
import { list, watchTimeline } from "../state/timeline";
import { FilterBar } from "./filterbar";
import { Help } from "./help";
import { HostStrip } from "./hosts";
import { listenToKeys } from "./keys";
import { LogIn } from "./login";
import { isSheet } from "./media";
import { ChainPanel } from "./panel";
import { SCROLLER_ID, Timeline } from "./timeline";
import { TopBar } from "./topbar";

export function App() {
  if (session.value === "asking") return null;
  return session.value === "in" ? <Home /> : <LogIn />;
}

function Home() {
  const scroller = useRef<HTMLElement>(null);
  useEffect(() => {
    const until = new AbortController();
    watchHosts(until.signal);
    watchTimeline(until.signal);
    watchChain(until.signal);
    followOpened(until.signal);
    const deaf = listenToKeys();
    const untitled = titled();
    return () => {
      until.abort();
      deaf();
      untitled();
    };
  }, []);

  const covered = isSheet.value && openEventId.value !== null;
  return (
    <div class={`app${openEventId.value === null ? "" : " with-panel"}`}>
      <TopBar inert={covered} />
      <main ref={scroller} id={SCROLLER_ID} class="scroller" tabIndex={-1} inert={covered}>
        <HostStrip />
        <FilterBar />
        <Timeline scroller={scroller} />
      </main>
      <ChainPanel />
      <Help />
    </div>
  );
}

/** Names the newest critical event's host in the tab's title while the tab is not looked at. */
function titled(): () => void {
  let seen = list.peek().events[0]?.ts_us ?? 0;
  const stop = effect(() => {
    const newest = list.value.events[0];
    if (!document.hidden || newest === undefined) {
      seen = newest?.ts_us ?? seen;
      return;
    }
    const fresh = list.value.events.filter((event) => event.ts_us > seen && event.severity === "critical");
    document.title = fresh.length > 0 ? `(${fresh.length}) ${fresh[0]?.host} · Reflex` : "Reflex";
  });
  const back = () => {
    if (document.hidden) return;
    seen = list.peek().events[0]?.ts_us ?? seen;
    document.title = "Reflex";
  };
  document.addEventListener("visibilitychange", back);
  return () => {
    stop();
    document.removeEventListener("visibilitychange", back);
  };
}
