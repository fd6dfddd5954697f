/** The snapshot that an event names: opened on demand, with the calls of each thread and what the memory held. */
import type { Snapshot, SnapshotConnection, SnapshotThread } from "../api/artifacts";
import { fetchSnapshot } from "../api/client";
import { facts } from "../model/facts";
import { exactBytes, size } from "../model/units";
import { ArtifactReader } from "./artifact";
import { CopyButton } from "./copy";
import { BracesIcon } from "./icons";

const MISSING = "The snapshot is not stored: not yet, or not any more after 32 days.";

export function SnapshotReader({ id }: { id: string }) {
  return (
    <ArtifactReader
      id={id}
      title="Snapshot of the process: stacks, memory, connections"
      missing={MISSING}
      fetch={fetchSnapshot}
    >
      {(snapshot) => <SnapshotView snapshot={snapshot} />}
    </ArtifactReader>
  );
}

function SnapshotView({ snapshot }: { snapshot: Snapshot }) {
  const { threads, kinds, largest, connections } = snapshot;
  return (
    <div class="snapshot-body">
      <p>
        Kept because {snapshot.why || "of a reason that is not told"}.
        <CopyButton icon={<BracesIcon />} label="JSON" text={() => JSON.stringify(snapshot, null, 2)} />
      </p>
      {threads === null ? (
        <p class="notice">No Python stacks: {snapshot.noStacks || "no reason was given"}.</p>
      ) : (
        threads.map((thread, index) => <ThreadView key={thread.id ?? index} thread={thread} open={index === 0} />)
      )}
      {kinds === null ? (
        <p class="notice">No memory map: {snapshot.noMemory || "no reason was given"}.</p>
      ) : (
        <table class="parts">
          <caption>Resident memory, largest first</caption>
          <tbody>
            {largest.map((part) => (
              <tr key={part.name}>
                <td title={exactBytes(part.rss_bytes)}>{size(part.rss_bytes)}</td>
                <td class="dim">{part.kind.replace("_", " ")}</td>
                <td class="mono">{part.name}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {connections.length > 0 && (
        <table class="parts">
          <caption>TCP connections</caption>
          <tbody>
            {connections.map((one) => (
              <tr key={`${one.own} ${one.far}`}>
                <td>{one.state}</td>
                <td class="dim">{waiting(one)}</td>
                <td class="mono">
                  {one.own} → {one.far}
                </td>
              </tr>
            ))}
            {snapshot.connectionsLeftOut > 0 && (
              <tr>
                <td />
                <td />
                <td class="dim">and {snapshot.connectionsLeftOut} more</td>
              </tr>
            )}
          </tbody>
        </table>
      )}
      <dl class="facts">
        {facts(snapshot.numbers).map((fact) => (
          <div key={fact.name}>
            <dt>{fact.name}</dt>
            <dd title={fact.exact ?? undefined}>{fact.value}</dd>
          </div>
        ))}
      </dl>
      {snapshot.notHad.map((one) => (
        <p key={one} class="dim">
          Cannot be had from outside: {one}.
        </p>
      ))}
    </div>
  );
}

function waiting(one: SnapshotConnection): string {
  return [one.unread > 0 && `${size(one.unread)} unread`, one.unsent > 0 && `${size(one.unsent)} unsent`]
    .filter(Boolean)
    .join(", ");
}

function ThreadView({ thread, open }: { thread: SnapshotThread; open: boolean }) {
  const marks = [thread.active && "runs", thread.gil && "holds the GIL"].filter(Boolean).join(", ");
  return (
    <details class="thread" open={open}>
      <summary>
        <span class="mono">{thread.name}</span>
        <span class="dim">
          {thread.id !== null && ` id ${thread.id}`}
          {marks && `, ${marks}`}
        </span>
      </summary>
      <ol class="calls">
        {thread.calls.map((call, index) => (
          <li key={index}>{call}</li>
        ))}
        {thread.callsLeftOut > 0 && <li class="dim">and {thread.callsLeftOut} outer calls that did not fit</li>}
      </ol>
    </details>
  );
}
