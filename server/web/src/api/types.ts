/** The shapes that the server's API speaks, as docs/api.md gives them. */

export type Severity = "info" | "warning" | "critical";
export type Scalar = string | number | boolean;

export interface Evidence {
  source: string;
  fact: string;
}

export interface WorkerRef {
  slot: number;
  generation: number;
  pid: number;
  start_ticks: number;
}

/** Something that happened; `ts_us` is UTC in microseconds since 1970, `cause` the id of the event behind it. */
export interface TimelineEvent {
  id: string;
  ts_us: number;
  ts: string;
  host: string;
  kind: string;
  severity: Severity;
  text: string;
  service: string | null;
  worker: WorkerRef | null;
  release: string | null;
  cause: string | null;
  evidence: Evidence[];
  attrs: Record<string, Scalar>;
}

export interface TimelinePage {
  events: TimelineEvent[];
  next_cursor: string | null;
}

export interface ChainLink {
  cause: string;
  effect: string;
  gap_us: number;
}

export interface Chain {
  id: string;
  root: string;
  events: TimelineEvent[];
  links: ChainLink[];
  missing: string[];
  truncated: boolean;
}

export type ProbeState = "attached" | "degraded" | "off";

export interface Probe {
  signal: string;
  state: ProbeState;
  rung: string;
  reason: string;
  /** Since the agent's start; null for a signal without records of its own, or where the agent does not say. */
  records: number | null;
  lost: number | null;
  /** Only while the kernel's run-time statistics are switched on. */
  ns_per_event: number | null;
}

export interface LaneWorker {
  slot: number;
  generation: number;
  pid: number;
  state: string;
  since_us: number;
}

export interface Service {
  name: string;
  kind: string;
  master_pid: number;
  listeners: string[];
  workers: LaneWorker[];
}

/** What an agent last said about itself. Unknown numbers are null: an agent of another version may leave them out. */
export interface AgentStatus {
  version: string;
  kernel: string;
  cpu_percent: number | null;
  rss_bytes: number | null;
  spool_bytes: number | null;
  lost: Record<string, number>;
  probes: Probe[];
  services: Service[];
}

export interface Host {
  name: string;
  state: "live" | "silent";
  last_seen_us: number | null;
  status: AgentStatus;
}

export interface Session {
  role: string;
  server_version: string;
}
