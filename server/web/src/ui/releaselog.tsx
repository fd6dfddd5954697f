/** The log of one phase of a release, that its event names: what its programs said, with the time of each line. */
import type { LogLine, ReleaseLog } from "../api/artifacts";
import { fetchReleaseLog } from "../api/client";
import { timeOfDay } from "../model/clock";
import { zone } from "../state/prefs";
import { ArtifactReader } from "./artifact";
import { CopyButton } from "./copy";
import { BracesIcon } from "./icons";

const MISSING = "The log is not stored: not yet, or not any more after 32 days.";

export function ReleaseLogReader({ id }: { id: string }) {
  return (
    <ArtifactReader id={id} title="Log: what its programs said" missing={MISSING} fetch={fetchReleaseLog}>
      {(log) => <ReleaseLogView log={log} />}
    </ArtifactReader>
  );
}

function ReleaseLogView({ log }: { log: ReleaseLog }) {
  const lines = [...log.first, ...log.last];
  if (lines.length === 0) return <p class="dim">Its programs said nothing.</p>;
  return (
    <div class="snapshot-body">
      <CopyButton icon={<BracesIcon />} label="Text" text={() => lines.map((line) => line.text).join("\n")} />
      <Lines lines={log.first} />
      {log.leftOut > 0 && <p class="dim">{log.leftOut} lines between these were too many to be kept.</p>}
      <Lines lines={log.last} />
    </div>
  );
}

function Lines({ lines }: { lines: LogLine[] }) {
  return (
    <ol class="log-lines">
      {lines.map((line, index) => (
        <li key={index}>
          <time class="dim">{timeOfDay(line.tsUs, zone.value)}</time> {line.text}
        </li>
      ))}
    </ol>
  );
}
