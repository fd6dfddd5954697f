/** What an event names because it is too long for it: opened on demand, and read by whatever knows its kind. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { sessionEnded } from "../state/session";

interface Props<T> {
  id: string;
  title: string;
  /** What is said where it is not stored. */
  missing: string;
  fetch: (id: string, signal: AbortSignal) => Promise<T>;
  children: (found: T) => ComponentChildren;
}

type Loaded<T> = { found: T } | { trouble: string } | null;

export function ArtifactReader<T>({ id, title, missing, fetch, children }: Props<T>) {
  const [open, setOpen] = useState(false);
  const [loaded, setLoaded] = useState<Loaded<T>>(null);
  useEffect(() => {
    if (!open || (loaded !== null && "found" in loaded)) return;
    const request = new AbortController();
    load(fetch(id, request.signal), missing, request.signal).then((result) => {
      if (!request.signal.aborted) setLoaded(result);
    });
    return () => request.abort();
  }, [open, id]);
  return (
    <details class="snapshot" onToggle={(toggle) => setOpen((toggle.currentTarget as HTMLDetailsElement).open)}>
      <summary>{title}</summary>
      <div aria-live="polite">
        {open && loaded === null && <p class="dim">Loading…</p>}
        {loaded !== null && "trouble" in loaded && <p class="notice">{loaded.trouble}</p>}
      </div>
      {loaded !== null && "found" in loaded && children(loaded.found)}
    </details>
  );
}

async function load<T>(answer: Promise<T>, missing: string, signal: AbortSignal): Promise<Loaded<T>> {
  try {
    return { found: await answer };
  } catch (error) {
    if (signal.aborted) return null;
    if (!(error instanceof ApiError)) throw error;
    if (error.unauthorized) sessionEnded();
    return { trouble: error.status === 404 ? missing : error.message };
  }
}
