/** The present moment in microseconds since 1970, moving on every few seconds for words such as "2 s ago". */
import { signal } from "@preact/signals";

const STEP_MS = 2_000;

export const nowUs = signal(Date.now() * 1_000);

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) nowUs.value = Date.now() * 1_000;
  }, STEP_MS);
}
