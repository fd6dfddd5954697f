/** A kernel signal and how well it is heard: "no OOMs" and "the OOM probe is off" must not look alike. */
import type { Probe, ProbeState } from "../api/types";
import { Popover } from "./popover";

const NAMES: Record<string, string> = {
  oom: "OOM",
  oom_context: "OOM decision",
  queue: "accept queue",
  queue_wait: "accept wait",
  queue_overflow: "refused connections",
};

const STATES: Record<ProbeState, string> = {
  attached: "attached: heard in full",
  degraded: "degraded: heard by a lesser means",
  off: "off: not heard, so silence means nothing",
};

export function signalName(signal: string): string {
  return NAMES[signal] ?? signal.replaceAll("_", " ");
}

export function ProbeChip({ probe }: { probe: Probe }) {
  const name = signalName(probe.signal);
  return (
    <Popover
      class={`probe ${probe.state}`}
      name={`${name} probe: ${STATES[probe.state]}`}
      label={
        <>
          <ProbeMark state={probe.state} />
          {name}
          {probe.state === "off" && <b> off</b>}
        </>
      }
    >
      <div class="probe-card">
        <strong>
          {name} probe is {probe.state}
        </strong>
        <p>{STATES[probe.state]}</p>
        <dl>
          <dt>Means</dt>
          <dd>{probe.rung || "none"}</dd>
          {probe.records !== null && (
            <>
              <dt>Records</dt>
              <dd>
                {probe.records.toLocaleString()}
                {probe.lost ? <b class="bad">, {probe.lost.toLocaleString()} lost</b> : ", none lost"}
              </dd>
            </>
          )}
          {probe.ns_per_event !== null && (
            <>
              <dt>Cost</dt>
              <dd>{Math.round(probe.ns_per_event).toLocaleString()} ns an event</dd>
            </>
          )}
          {probe.reason && (
            <>
              <dt>Reason</dt>
              <dd>
                {probe.reason.split("; ").map((part) => (
                  <p key={part}>{part}</p>
                ))}
              </dd>
            </>
          )}
        </dl>
      </div>
    </Popover>
  );
}

/** A tick, a half-filled disc, or a crossed ring. */
export function ProbeMark({ state }: { state: ProbeState }) {
  return (
    <svg class={`probe-mark ${state}`} width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">
      {state === "attached" && <path d="m2.5 6.5 2.3 2.3 4.7-5.3" />}
      {state === "degraded" && (
        <>
          <circle cx="6" cy="6" r="4.2" />
          <path class="fill" d="M6 1.8a4.2 4.2 0 0 1 0 8.4Z" />
        </>
      )}
      {state === "off" && (
        <>
          <circle cx="6" cy="6" r="4.2" />
          <path d="m3.1 8.9 5.8-5.8" />
        </>
      )}
    </svg>
  );
}
