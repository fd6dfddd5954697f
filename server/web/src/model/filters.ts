/** Which events are asked for, and how that is written in the address bar and in the API's parameters. Pure. */
import type { Severity } from "../api/types";

/**
 * Empty lists and nulls let everything through. `severity` means this one and worse. `from` and `to` are times as
 * the API takes them: RFC 3339, or `-1h` back from now.
 */
export interface Filters {
  from: string | null;
  to: string | null;
  severity: Severity | null;
  kinds: string[];
  hosts: string[];
  services: string[];
  q: string;
}

export const NO_FILTERS: Filters = {
  from: null,
  to: null,
  severity: null,
  kinds: [],
  hosts: [],
  services: [],
  q: "",
};

export const RANGES: readonly { from: string; label: string }[] = [
  { from: "-15m", label: "Last 15 minutes" },
  { from: "-1h", label: "Last hour" },
  { from: "-6h", label: "Last 6 hours" },
  { from: "-24h", label: "Last 24 hours" },
  { from: "-7d", label: "Last 7 days" },
  { from: "-30d", label: "Last 30 days" },
];

const SEVERITIES: readonly Severity[] = ["info", "warning", "critical"];

export function readFilters(params: URLSearchParams): Filters {
  const severity = SEVERITIES.find((name) => name === params.get("severity")) ?? null;
  return {
    from: params.get("from"),
    to: params.get("to"),
    severity: severity === "info" ? null : severity,
    kinds: unique(params.getAll("kind")),
    hosts: unique(params.getAll("host")),
    services: unique(params.getAll("service")),
    q: params.get("q") ?? "",
  };
}

/** The parameters of /v1/timeline. */
export function writeFilters(filters: Filters): URLSearchParams {
  const params = streamFilters(filters);
  if (filters.from) params.set("from", filters.from);
  if (filters.to) params.set("to", filters.to);
  return params;
}

/** The parameters of /v1/stream, which has no time range. */
export function streamFilters(filters: Filters): URLSearchParams {
  const params = new URLSearchParams();
  if (filters.severity) params.set("severity", filters.severity);
  for (const kind of filters.kinds) params.append("kind", kind);
  for (const host of filters.hosts) params.append("host", host);
  for (const service of filters.services) params.append("service", service);
  if (filters.q.trim()) params.set("q", filters.q.trim());
  return params;
}

export function isFiltered(filters: Filters): boolean {
  return writeFilters(filters).size > 0;
}

/** A range with a fixed end shows the past: nothing new can come into it. */
export function isLive(filters: Filters): boolean {
  return filters.to === null;
}

/** The values with one more, or with one fewer where it is already there. */
export function toggled(values: readonly string[], value: string): string[] {
  return values.includes(value) ? values.filter((other) => other !== value) : [...values, value];
}

function unique(values: string[]): string[] {
  return [...new Set(values.filter((value) => value !== ""))];
}
