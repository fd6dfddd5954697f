/**
 * Reads the answer of /v1/artifacts/{id}. A snapshot's content is free-form on the wire, so every field is checked here;
 * what is not there becomes null or an empty list.
 */
type Json = Record<string, unknown>;

export interface SnapshotThread {
  name: string;
  id: number | null;
  /** It ran at that moment, or waited for nothing that the system knows. */
  active: boolean;
  gil: boolean;
  /** Innermost first, as `function (file:line)`. */
  calls: string[];
  callsLeftOut: number;
}

export interface SnapshotPart {
  name: string;
  kind: string;
  rss_bytes: number;
}

export interface SnapshotConnection {
  own: string;
  far: string;
  state: string;
  /** Bytes that have come and that the process has not read. */
  unread: number;
  /** Bytes that the far end has not taken yet. */
  unsent: number;
}

export interface Snapshot {
  id: string;
  why: string;
  /** Null when no stacks could be had; `noStacks` then says why. */
  threads: SnapshotThread[] | null;
  noStacks: string;
  /** Null when the memory could not be looked at; `noMemory` then says why. */
  kinds: Record<string, number> | null;
  noMemory: string;
  largest: SnapshotPart[];
  connections: SnapshotConnection[];
  connectionsLeftOut: number;
  /** Numbers of the process, its cgroup and the look itself, by name. */
  numbers: Record<string, number>;
  notHad: string[];
}

export interface LogLine {
  tsUs: number;
  text: string;
}

/** What the programs of one phase of a release said. */
export interface ReleaseLog {
  first: LogLine[];
  /** Lines between the first and the last that were too many to be kept. */
  leftOut: number;
  last: LogLine[];
}

export function readReleaseLog(answer: unknown): ReleaseLog {
  const content = record(record(answer).content);
  return {
    first: list(content.first).map(readLine),
    leftOut: number(content.left_out) ?? 0,
    last: list(content.last).map(readLine),
  };
}

function readLine(value: unknown): LogLine {
  const [ts, line] = list(value);
  return { tsUs: number(ts) ?? 0, text: text(line) };
}

export function readSnapshot(answer: unknown): Snapshot {
  const { id, content: value } = record(answer);
  const content = record(value);
  const memory = record(content.memory);
  const sockets = record(content.sockets);
  const took = record(content.took);
  return {
    id: text(id),
    why: text(content.why),
    threads: Array.isArray(content.threads) ? content.threads.map(readThread) : null,
    noStacks: text(content.no_stacks_because),
    kinds: "bytes_by_kind" in memory ? numbers(memory.bytes_by_kind) : null,
    noMemory: text(content.no_memory_because),
    largest: list(memory.largest).map(readPart),
    connections: list(sockets.connections).map(readConnection),
    connectionsLeftOut: number(sockets.connections_left_out) ?? 0,
    numbers: {
      ...numbers(memory),
      ...numbers(content.process),
      ...prefixed("cgroup_", numbers(content.cgroup)),
      ...prefixed("look_", numbers(took)),
    },
    notHad: list(content.not_had).map(text).filter(Boolean),
  };
}

function readThread(value: unknown): SnapshotThread {
  const thread = record(value);
  return {
    name: text(thread.name) || "thread",
    id: number(thread.id),
    active: thread.is_active === true,
    gil: thread.has_gil === true,
    calls: list(thread.calls).map(text).filter(Boolean),
    callsLeftOut: number(thread.calls_left_out) ?? 0,
  };
}

function readConnection(value: unknown): SnapshotConnection {
  const one = record(value);
  return {
    own: text(one.own),
    far: text(one.far),
    state: text(one.state),
    unread: number(one.unread_bytes) ?? 0,
    unsent: number(one.unsent_bytes) ?? 0,
  };
}

function readPart(value: unknown): SnapshotPart {
  const part = record(value);
  return { name: text(part.name), kind: text(part.kind), rss_bytes: number(part.rss_bytes) ?? 0 };
}

function numbers(value: unknown): Record<string, number> {
  return Object.fromEntries(Object.entries(record(value)).filter(([, one]) => number(one) !== null)) as Record<
    string,
    number
  >;
}

function prefixed(prefix: string, values: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
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
