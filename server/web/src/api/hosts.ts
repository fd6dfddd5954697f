/**
 * Reads the answer of /v1/hosts. An agent's status is free-form on the wire, so every field is checked here and the
 * rest of the page can rely on the shape; what an agent does not say becomes null or an empty list.
 */
import type { AgentStatus, Host, LaneWorker, Probe, ProbeState, Service } from "./types";

type Json = Record<string, unknown>;

export function readHosts(answer: unknown): Host[] {
  return list(record(answer).hosts)
    .map(readHost)
    .filter((host) => host.name !== "")
    .sort((a, b) => a.name.localeCompare(b.name));
}

function readHost(value: unknown): Host {
  const host = record(value);
  return {
    name: text(host.name),
    state: host.state === "live" ? "live" : "silent",
    last_seen_us: number(host.last_seen_us),
    status: readStatus(host.status),
  };
}

function readStatus(value: unknown): AgentStatus {
  const status = record(value);
  return {
    version: text(status.version),
    kernel: text(status.kernel),
    cpu_percent: number(status.cpu_percent),
    rss_bytes: number(status.rss_bytes),
    spool_bytes: number(status.spool_bytes),
    lost: counts(status.lost),
    probes: list(status.probes).map(readProbe),
    services: list(status.services).map(readService),
  };
}

function readProbe(value: unknown): Probe {
  const probe = record(value);
  const known: ProbeState[] = ["attached", "degraded", "off"];
  const state = known.find((name) => name === probe.state) ?? "off";
  return {
    signal: text(probe.signal),
    state,
    rung: text(probe.rung),
    reason: text(probe.reason),
    records: number(probe.records),
    lost: number(probe.lost),
    ns_per_event: number(probe.ns_per_event),
  };
}

function readService(value: unknown): Service {
  const service = record(value);
  return {
    name: text(service.name),
    kind: text(service.kind),
    master_pid: number(service.master_pid) ?? 0,
    listeners: list(service.listeners).map(text),
    workers: list(service.workers)
      .map(readWorker)
      .sort((a, b) => a.slot - b.slot),
  };
}

function readWorker(value: unknown): LaneWorker {
  const worker = record(value);
  return {
    slot: number(worker.slot) ?? 0,
    generation: number(worker.generation) ?? 0,
    pid: number(worker.pid) ?? 0,
    state: text(worker.state) || "unknown",
    since_us: number(worker.since_us) ?? 0,
  };
}

function counts(value: unknown): Record<string, number> {
  return Object.fromEntries(Object.entries(record(value)).filter(([, n]) => typeof n === "number")) as Record<
    string,
    number
  >;
}

function record(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
