/**
 * The live stream of /v1/stream, kept open for as long as it is wanted.
 *
 * EventSource hides why a connection failed and gives up on some statuses, so each try is made here: a broken stream is
 * closed, the session is asked whether it still holds, and the next try asks for what was stored after the last event
 * that was seen. Where that is not possible (nothing seen yet, or a server that is up refuses to resume twice) the next
 * stream that opens tells `onGap`, so that its reader loads the newest page afresh.
 */
import { ApiError, fetchSession } from "./client";
import { readHosts } from "./hosts";
import type { Host, TimelineEvent } from "./types";

export interface StreamHandlers {
  onOpen(): void;
  onEvent(event: TimelineEvent): void;
  onHosts(hosts: Host[]): void;
  /** The connection is gone; the next try comes after `retryMs`. */
  onDown(retryMs: number): void;
  onGap(): void;
  onLoggedOut(): void;
}

export interface Stream {
  close(): void;
  /** Drops the connection and opens it again at once, from the last event seen. */
  renew(): void;
  /** Milliseconds since the stream last said anything that a page can hear. */
  quietMs(): number;
}

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15_000;

export function openStream(filters: URLSearchParams, handlers: StreamHandlers): Stream {
  let source: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastId: string | null = null;
  let failures = 0;
  let refusals = 0;
  let heardAt = performance.now();
  let closed = false;

  function connect(): void {
    const query = new URLSearchParams(filters);
    if (refusals >= 2) lastId = null;
    if (lastId !== null) query.set("after", lastId);
    const gap = failures > 0 && lastId === null;
    const opened = new EventSource(`/v1/stream?${query}`);
    source = opened;
    opened.onopen = () => {
      heardAt = performance.now();
      handlers.onOpen();
      failures = 0;
      refusals = 0;
      if (gap) handlers.onGap();
    };
    opened.onerror = () => {
      if (source === opened) void recover();
    };
    opened.addEventListener("timeline", (message) => {
      heardAt = performance.now();
      const event = JSON.parse(message.data) as TimelineEvent;
      lastId = event.id;
      handlers.onEvent(event);
    });
    opened.addEventListener("hosts", (message) => {
      heardAt = performance.now();
      handlers.onHosts(readHosts(JSON.parse(message.data)));
    });
  }

  async function recover(): Promise<void> {
    drop();
    const waitMs = Math.min(FIRST_RETRY_MS * 2 ** failures, LAST_RETRY_MS);
    failures += 1;
    handlers.onDown(waitMs);
    const session = await askSession();
    if (closed || source !== null) return;
    if (session === "over") return handlers.onLoggedOut();
    if (session === "holds") refusals += 1;
    timer = setTimeout(connect, waitMs);
  }

  function drop(): void {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  connect();
  return {
    close() {
      closed = true;
      drop();
    },
    renew() {
      drop();
      connect();
    },
    quietMs: () => performance.now() - heardAt,
  };
}

async function askSession(): Promise<"holds" | "over" | "unknown"> {
  try {
    await fetchSession();
    return "holds";
  } catch (error) {
    return error instanceof ApiError && error.unauthorized ? "over" : "unknown";
  }
}
