/** The bar at the top: the name, whether the timeline is live, and the reader's own settings. */
import { type Zone, zoneName } from "../model/clock";
import { isLive } from "../model/filters";
import { nowUs } from "../state/now";
import { filters } from "../state/place";
import { type Theme, theme, zone } from "../state/prefs";
import { logOut, serverVersion } from "../state/session";
import { connection, paused, togglePause, waitingCount } from "../state/timeline";
import { openHelp } from "./help";
import { GlobeIcon, HelpIcon, LogOutIcon, Mark, MoonIcon, PauseIcon, PlayIcon, SunIcon, SystemIcon } from "./icons";

export function TopBar({ inert }: { inert: boolean }) {
  return (
    <header class="topbar" inert={inert}>
      <a class="brand" href="#/" title={serverVersion.value && `Reflex ${serverVersion.value}`}>
        <Mark />
        <span>Reflex</span>
      </a>
      <LiveState />
      <span class="spacer" />
      <ZoneToggle />
      <ThemeToggle />
      <button type="button" class="button icon-only" title="Keys and signs (?)" aria-label="Help" onClick={openHelp}>
        <HelpIcon />
      </button>
      <button type="button" class="button icon-only" title="Log out" aria-label="Log out" onClick={() => void logOut()}>
        <LogOutIcon />
      </button>
    </header>
  );
}

function LiveState() {
  if (!isLive(filters.value)) {
    return (
      <span class="live-state fixed" role="status" title="The time range has a fixed end">
        <span class="dot" /> Past
      </span>
    );
  }
  const state = connection.value === "live" && paused.value ? "paused" : connection.value;
  const waits = waitingCount.value;
  const words = { live: "Live", paused: "Paused", connecting: "Connecting", down: "Reconnecting" }[state];
  return (
    <button
      type="button"
      class={`live-state ${state}`}
      aria-label={`${words}. ${paused.value ? "Let new events in" : "Pause"}`}
      title={paused.value ? "Let new events in (p)" : "Pause (p)"}
      onClick={togglePause}
    >
      <span class="dot" />
      <span role="status">{words}</span>
      {paused.value && waits > 0 && <span class="count">{waits} new</span>}
      {paused.value ? <PlayIcon /> : <PauseIcon />}
    </button>
  );
}

function ZoneToggle() {
  const other: Zone = zone.value === "local" ? "utc" : "local";
  return (
    <button
      type="button"
      class="button quiet zone"
      title={`Times are in ${zoneName(zone.value, nowUs.value)}; switch to ${zoneName(other, nowUs.value)} (z)`}
      aria-label={`Times are in ${zoneName(zone.value, nowUs.value)}; switch to ${zoneName(other, nowUs.value)}`}
      onClick={toggleZone}
    >
      <GlobeIcon />
      <span>{zoneName(zone.value, nowUs.value)}</span>
    </button>
  );
}

export function toggleZone(): void {
  zone.value = zone.peek() === "local" ? "utc" : "local";
}

const THEMES: Record<Theme, { next: Theme; name: string }> = {
  auto: { next: "light", name: "as the system" },
  light: { next: "dark", name: "light" },
  dark: { next: "auto", name: "dark" },
};

function ThemeToggle() {
  const { next, name } = THEMES[theme.value];
  return (
    <button
      type="button"
      class="button icon-only"
      title={`Theme: ${name}; next: ${THEMES[next].name} (t)`}
      aria-label={`Theme: ${name}; switch to ${THEMES[next].name}`}
      onClick={nextTheme}
    >
      {theme.value === "auto" ? <SystemIcon /> : theme.value === "light" ? <SunIcon /> : <MoonIcon />}
    </button>
  );
}

export function nextTheme(): void {
  theme.value = THEMES[theme.peek()].next;
}
