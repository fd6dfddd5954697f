/** What stands in place of events when there are none, and what to do next. */
import { isFiltered, NO_FILTERS } from "../model/filters";
import { hosts } from "../state/hosts";
import { filters, setFilters } from "../state/place";
import { Glyph } from "./glyph";
import { signalName } from "./probe";

export function EmptyTimeline() {
  if (isFiltered(filters.value)) return <NothingMatches />;
  if (hosts.value === null) return null;
  return hosts.value.length === 0 ? <NoHost /> : <NothingHappened />;
}

function NoHost() {
  return (
    <div class="empty">
      <h2>No host yet</h2>
      <p>Reflex learns of your workers from an agent on each host. To connect the first one:</p>
      <ol class="steps">
        <li>
          Here, on the server, make a key for the host:
          <code>reflex-server host-key add web-1 --out web-1.key</code>
        </li>
        <li>
          Copy <code class="inline">web-1.key</code> to the host, readable by root only.
        </li>
        <li>
          There, start the agent as root, with this server's address and the key:
          <code>reflexd run --server-url {location.origin} --host-key-file web-1.key</code>
        </li>
      </ol>
      <p class="dim">The host appears here by itself within seconds.</p>
    </div>
  );
}

function NothingHappened() {
  const all = hosts.value ?? [];
  const live = all.filter((host) => host.state === "live").map((host) => host.name);
  const probes = all.flatMap((host) => host.status.probes);
  const deaf = [...new Set(probes.filter((probe) => probe.state === "off").map((probe) => signalName(probe.signal)))];
  const heard = [...new Set(probes.filter((probe) => probe.state !== "off").map((probe) => signalName(probe.signal)))];
  const hearing = heard.filter((signal) => !deaf.includes(signal));
  return (
    <div class="empty">
      <Glyph tone={live.length > 0 && deaf.length === 0 ? "good" : "warning"} />
      <h2>Nothing has happened yet</h2>
      {live.length > 0 ? (
        <p>
          {live.join(", ")} {live.length === 1 ? "is" : "are"} watched.
          {hearing.length > 0 && ` Heard there: ${hearing.join(", ")}.`}
        </p>
      ) : (
        <p>
          No host is live: silence says nothing now. Is reflexd running on {all.map((host) => host.name).join(", ")}?
        </p>
      )}
      {deaf.length > 0 && (
        <p class="bad">Not heard everywhere, so silence about it means nothing: {deaf.join(", ")}.</p>
      )}
      <p>
        To see what a worker's death looks like, run <code class="inline">./reflex demo oom</code>.
      </p>
    </div>
  );
}

function NothingMatches() {
  return (
    <div class="empty">
      <h2>No event matches these filters</h2>
      <p>Remove one of the chips above, or look at everything.</p>
      <p class="actions">
        {(filters.value.from !== null || filters.value.to !== null) && (
          <button type="button" class="button" onClick={() => setFilters({ from: null, to: null })}>
            Look at all time
          </button>
        )}
        <button type="button" class="button" onClick={() => setFilters(NO_FILTERS)}>
          Clear all filters
        </button>
      </p>
    </div>
  );
}
