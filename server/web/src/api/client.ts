/** Calls of the HTTP API. Every failure is an ApiError whose message can be shown to a person as it is. */
import { type ReleaseLog, readReleaseLog, readSnapshot, type Snapshot } from "./artifacts";
import { readHosts } from "./hosts";
import type { Chain, Host, Session, TimelinePage } from "./types";

/** `status` is the HTTP status, or 0 when no answer came at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  get unauthorized(): boolean {
    return this.status === 401;
  }
}

export function fetchTimeline(query: URLSearchParams, signal?: AbortSignal): Promise<TimelinePage> {
  return call<TimelinePage>(`/v1/timeline?${query}`, signal ? { signal } : {});
}

export function fetchChain(id: string, signal?: AbortSignal): Promise<Chain> {
  return call<Chain>(`/v1/chain/${encodeURIComponent(id)}`, signal ? { signal } : {});
}

export async function fetchSnapshot(id: string, signal: AbortSignal): Promise<Snapshot> {
  return readSnapshot(await call<unknown>(`/v1/artifacts/${encodeURIComponent(id)}`, { signal }));
}

export async function fetchReleaseLog(id: string, signal: AbortSignal): Promise<ReleaseLog> {
  return readReleaseLog(await call<unknown>(`/v1/artifacts/${encodeURIComponent(id)}`, { signal }));
}

export async function fetchHosts(): Promise<Host[]> {
  return readHosts(await call<unknown>("/v1/hosts"));
}

export function fetchSession(): Promise<Session> {
  return call<Session>("/v1/session");
}

export async function openSession(token: string): Promise<void> {
  await call("/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
}

export async function closeSession(): Promise<void> {
  await call("/v1/session", { method: "DELETE" });
}

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server does not answer. Is reflex-server running, and the network up?");
  }
  const body = response.status === 204 ? null : await bodyOf(response);
  if (!response.ok) throw failure(response, body);
  return body as T;
}

/** The answer's JSON, or null for an answer (a proxy's error page, an empty 200) that is none. */
async function bodyOf(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function failure(response: Response, body: unknown): ApiError {
  const told = (body as { error?: { code?: string; message?: string } } | null)?.error;
  return new ApiError(
    response.status,
    told?.code ?? "http_error",
    told?.message ?? `The server answered ${response.status} ${response.statusText}`.trim(),
  );
}
