/** An event's attributes as names, readable values and exact values, told apart by the unit in the name. Pure. */
import type { Scalar } from "../api/types";
import { deathWords } from "./kinds";
import { exactBytes, grouped, size, span } from "./units";

/** `exact` is what hovering shows; null where the value itself is all there is. */
export interface Fact {
  name: string;
  value: string;
  exact: string | null;
  /** Whether the value is a text of lines, such as a stack, that wants the whole width. */
  isListing?: boolean;
}

const SIGNALS: Record<number, string> = {
  1: "SIGHUP",
  2: "SIGINT",
  3: "SIGQUIT",
  4: "SIGILL",
  5: "SIGTRAP",
  6: "SIGABRT",
  7: "SIGBUS",
  8: "SIGFPE",
  9: "SIGKILL",
  10: "SIGUSR1",
  11: "SIGSEGV",
  12: "SIGUSR2",
  13: "SIGPIPE",
  14: "SIGALRM",
  15: "SIGTERM",
  17: "SIGCHLD",
  21: "SIGTTIN",
  22: "SIGTTOU",
  31: "SIGSYS",
};

const UNITS: [suffix: string, read: (value: number) => { value: string; exact: string }][] = [
  ["_bytes_per_s", (n) => ({ value: `${size(n * 60)} a minute`, exact: `${exactBytes(n)} a second` })],
  ["_per_s", (n) => ({ value: `${grouped(n)} a second`, exact: `${n} a second` })],
  ["_bytes", (n) => ({ value: size(n), exact: exactBytes(n) })],
  ["_us", (n) => ({ value: span(n), exact: `${grouped(n)} µs` })],
  ["_ns", (n) => ({ value: span(n / 1_000), exact: `${grouped(n)} ns` })],
  ["_ms", (n) => ({ value: span(n * 1_000), exact: `${grouped(n)} ms` })],
  ["_s", (n) => ({ value: span(n * 1e6), exact: `${grouped(n)} s` })],
  ["_percent", (n) => ({ value: `${grouped(n)} %`, exact: `${n} %` })],
];

const PLAIN = /(^|_)(pid|uid|gid|id|port|inode|code|ticks)$/;

/** What a reader looks for first; the rest follows by name. */
const FIRST = [
  "death",
  "signal",
  "exit_code",
  "sender",
  "age_s",
  "boot_ms",
  "timeout_s",
  "heartbeat_age_s",
  "depth",
  "limit",
  "limit_bytes",
  "usage_bytes",
  "anon_bytes",
  "file_bytes",
  "shmem_bytes",
  "swap_bytes",
  "total_vm_bytes",
  "peak_rss_bytes",
  "cpu_s",
];

export function facts(attrs: Record<string, Scalar>): Fact[] {
  const place = (key: string) => (FIRST.includes(key) ? FIRST.indexOf(key) : FIRST.length);
  return Object.entries(attrs)
    .sort(([a, x], [b, y]) => lines(x) - lines(y) || place(a) - place(b) || a.localeCompare(b))
    .map(([key, value]) => fact(key, value));
}

/** Listings come last. */
function lines(value: Scalar): number {
  return typeof value === "string" && value.includes("\n") ? 1 : 0;
}

function fact(key: string, value: Scalar): Fact {
  if (typeof value === "boolean") return { name: words(key), value: value ? "yes" : "no", exact: null };
  if (typeof value === "string") return textFact(key, value);
  if (key === "signal" || key.endsWith("_signal")) {
    return { name: words(key), value: SIGNALS[value] ?? `signal ${value}`, exact: `signal ${value}` };
  }
  const unit = UNITS.find(([suffix]) => key.endsWith(suffix));
  if (unit) return { name: words(key.slice(0, -unit[0].length)), ...unit[1](value) };
  return { name: words(key), value: PLAIN.test(key) ? String(value) : grouped(value), exact: null };
}

function textFact(key: string, value: string): Fact {
  if (value.includes("\n")) return { name: words(key), value, exact: null, isListing: true };
  return key === "death"
    ? { name: "died of", value: deathWords(value), exact: `death: ${value}` }
    : { name: words(key), value: value || "(empty)", exact: null };
}

function words(key: string): string {
  return key
    .replaceAll("_", " ")
    .replace("oom", "OOM")
    .replace(/\bcpu\b/, "CPU")
    .replace(/\brss\b/, "RSS");
}

/** What filled a memory limit, in bytes, for drawing; `other` is what the limit counted beside the victim's own. */
export interface MemoryPicture {
  limit: number;
  anon: number;
  file: number;
  shmem: number;
  other: number;
}

/** The picture of an OOM kill's numbers, or null where the event has no limit or no memory of its victim. */
export function memoryPicture(attrs: Record<string, Scalar>): MemoryPicture | null {
  const bytes = (key: string) => (typeof attrs[key] === "number" ? (attrs[key] as number) : 0);
  const limit = bytes("limit_bytes");
  const [anon, file, shmem] = [bytes("anon_bytes"), bytes("file_bytes"), bytes("shmem_bytes")];
  if (limit <= 0 || anon + file + shmem <= 0) return null;
  const other = Math.max(0, Math.min(bytes("usage_bytes"), limit) - anon - file - shmem);
  return { limit, anon, file, shmem, other };
}
