/** An event's severity as a shape, so that it can be told without seeing its colour. */
import type { Severity } from "../api/types";
import { isGood } from "../model/kinds";

export type Tone = "critical" | "warning" | "good" | "info";

const NAMES: Record<Tone, string> = {
  critical: "Critical",
  warning: "Warning",
  good: "All right",
  info: "Information",
};

export function toneOf(kind: string, severity: Severity): Tone {
  if (severity !== "info") return severity;
  return isGood(kind) ? "good" : "info";
}

/** Octagon: critical. Triangle: warning. Circle with a tick: something is well again. Ring: information. */
export function Glyph({ tone }: { tone: Tone }) {
  return (
    <svg class={`glyph ${tone}`} width="16" height="16" viewBox="0 0 16 16" role="img" aria-label={NAMES[tone]}>
      {SHAPES[tone]}
    </svg>
  );
}

const SHAPES = {
  critical: (
    <>
      <path class="body" d="M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1Z" />
      <path class="mark" d="m5.6 5.6 4.8 4.8M10.4 5.6l-4.8 4.8" />
    </>
  ),
  warning: (
    <>
      <path class="body" d="M8 1.2 15.3 14H.7Z" stroke-linejoin="round" />
      <path class="mark" d="M8 6v3.6M8 11.6v.2" />
    </>
  ),
  good: (
    <>
      <circle class="body" cx="8" cy="8" r="6.5" />
      <path class="mark" d="m5.2 8.3 2 2 3.6-4.3" />
    </>
  ),
  info: <circle class="ring" cx="8" cy="8" r="4" />,
};
