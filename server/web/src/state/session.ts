/** Whether somebody is logged in, and how that changes. */
import { signal } from "@preact/signals";
import { ApiError, closeSession, fetchSession, openSession } from "../api/client";
import { takeToken } from "./place";

export type SessionState = "asking" | "out" | "in";

export const session = signal<SessionState>("asking");
export const sessionError = signal<string | null>(null);
export const serverVersion = signal("");
export const loggingIn = signal(false);

/** Takes the token of a log-in link, or else asks whether the cookie of an earlier log-in still holds. */
export async function startSession(): Promise<void> {
  const token = takeToken();
  if (token !== null) await logIn(token);
  else await resume();
}

export async function logIn(token: string): Promise<void> {
  loggingIn.value = true;
  sessionError.value = null;
  try {
    await openSession(token.trim());
    await resume();
  } catch (error) {
    session.value = "out";
    sessionError.value = refusal(error);
  } finally {
    loggingIn.value = false;
  }
}

export async function logOut(): Promise<void> {
  try {
    await closeSession();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (!error.unauthorized) {
      sessionError.value = `The server could not end the session: ${error.message}`;
    }
  }
  session.value = "out";
}

/** The server no longer knows this session. */
export function sessionEnded(): void {
  if (session.peek() !== "in") return;
  session.value = "out";
  sessionError.value = "Your session has ended. Log in again to go on where you were.";
}

async function resume(): Promise<void> {
  try {
    serverVersion.value = (await fetchSession()).server_version;
    session.value = "in";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    session.value = "out";
    if (!error.unauthorized) sessionError.value = error.message;
  }
}

function refusal(error: unknown): string {
  if (!(error instanceof ApiError)) throw error;
  if (error.unauthorized || error.status === 400) {
    return "This token is not known here. Paste the whole operator token, or make a new one on the server with: reflex-server operator-token new";
  }
  return error.message;
}
