/** The log-in view: one field for the operator token. */
import { useEffect, useRef, useState } from "preact/hooks";
import { loggingIn, logIn, sessionError } from "../state/session";
import { Mark } from "./icons";

export function LogIn() {
  const [token, setToken] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const error = sessionError.value;

  return (
    <main class="login">
      <form
        class="login-card"
        onSubmit={(submit) => {
          submit.preventDefault();
          if (token.trim()) void logIn(token);
        }}
      >
        <h1 class="brand">
          <Mark size={32} />
          Reflex
        </h1>
        <p class="lead">What happened to your workers, and why.</p>
        <label for="token">Operator token</label>
        <input
          id="token"
          ref={field}
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          value={token}
          placeholder="Paste the token"
          aria-invalid={error !== null}
          aria-describedby={error === null ? "token-help" : "token-error"}
          onInput={(input) => setToken(input.currentTarget.value)}
        />
        {error !== null && (
          <p id="token-error" class="form-error" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="button primary" disabled={loggingIn.value || token.trim() === ""}>
          {loggingIn.value ? "Logging in…" : "Log in"}
        </button>
        <p id="token-help" class="hint">
          The server shows the token once, at its first start. The link that it prints there logs you in as it is.
        </p>
      </form>
    </main>
  );
}
