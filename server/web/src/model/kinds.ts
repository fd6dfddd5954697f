/** What the kinds of events are called, which belong together, and which bring good news. Pure. */

/** A group of kinds that people filter by; `patterns` are values of the API's `kind` parameter. */
export interface KindGroup {
  key: string;
  label: string;
  patterns: string[];
}

export const KIND_GROUPS: readonly KindGroup[] = [
  { key: "oom", label: "OOM kills", patterns: ["worker.oom_killed", "process.oom_killed"] },
  { key: "ends", label: "Worker deaths", patterns: ["worker.exited", "worker.stuck"] },
  {
    key: "health",
    label: "Stuck, hung, leaking",
    patterns: ["worker.threads_stuck", "worker.boot_hung", "worker.leaking", "worker.snapshot"],
  },
  { key: "worker", label: "Workers, all", patterns: ["worker.*"] },
  { key: "service", label: "Services", patterns: ["service.*"] },
  { key: "queue", label: "Accept queues", patterns: ["queue.*"] },
  { key: "celery", label: "Celery", patterns: ["celery.*"] },
  { key: "deploy", label: "Deploys", patterns: ["deploy.*"] },
  { key: "playbook", label: "Playbooks and acts", patterns: ["playbook.*", "action.*"] },
  { key: "agent", label: "Agents and probes", patterns: ["agent.*", "probe.*"] },
];

const SHORT: Record<string, string> = {
  "worker.oom_killed": "OOM kill",
  "process.oom_killed": "OOM kill",
  "worker.started": "worker start",
  "worker.ready": "worker ready",
  "worker.exited": "worker exit",
  "worker.stuck": "worker stuck",
  "worker.leaking": "worker leak",
  "worker.boot_hung": "boot hang",
  "worker.snapshot": "snapshot",
  "worker.threads_stuck": "threads stuck",
  "worker.unstuck": "moves again",
  "queue.saturated": "queue full",
  "queue.recovered": "queue ok",
  "celery.task_stuck": "task stuck",
  "celery.task_lost": "task lost",
  "celery.task_unstuck": "task goes on",
  "celery.task_poisonous": "poisonous task",
  "celery.tasks_stranded": "tasks stranded",
  "celery.backlog_over": "backlog over",
  "celery.consumer_back": "consumer back",
  "celery.broker_unreachable": "broker away",
  "celery.broker_back": "broker back",
  "celery.consumer_silent": "silent consumer",
  "agent.spool_dropped": "spool dropped",
  "playbook.started": "repair begins",
  "playbook.step": "repair step",
  "playbook.verified": "repaired",
  "playbook.failed": "repair failed",
  "playbook.escalated": "not repaired",
  "playbook.cancelled": "repair ended",
  "playbook.skipped": "left alone",
  "playbook.would_run": "would repair",
  "playbook.waiting": "waits for a yes",
  "playbook.recurring": "repairs hide it",
  "action.asked": "act asked for",
  "action.done": "act done",
  "action.failed": "act failed",
  "action.refused": "act refused",
  "action.planned": "act planned",
};

const GOOD = new Set([
  "worker.ready",
  "queue.recovered",
  "agent.back",
  "probe.attached",
  "worker.unstuck",
  "celery.task_unstuck",
  "celery.backlog_over",
  "celery.consumer_back",
  "celery.broker_back",
  "playbook.verified",
]);

/** A kind in two words: `OOM kill`, `worker ready`, `agent silent`. */
export function kindLabel(kind: string): string {
  return SHORT[kind] ?? kind.replace(".", " ").replaceAll("_", " ");
}

/** Whether an event of this kind says that something is well again. */
export function isGood(kind: string): boolean {
  return GOOD.has(kind);
}

/** The group that has exactly these patterns chosen, for a chip's name. */
export function groupOfPattern(pattern: string): KindGroup | undefined {
  return KIND_GROUPS.find((group) => group.patterns.includes(pattern));
}

/** How a filter's `kind` value is called on a chip. */
export function patternLabel(pattern: string): string {
  if (pattern.endsWith(".*")) return `${pattern.slice(0, -2)}: all`;
  return kindLabel(pattern);
}

const DEATHS: Record<string, string> = {
  kernel_oom: "the kernel's OOM killer",
  master_timeout: "the master's timeout",
  killed_by_person: "a person's kill",
  killed_by_process: "another program's kill",
  killed_by_master: "its master's kill",
  killed_unseen: "an unseen sender's kill",
  kernel_kill: "the kernel, not OOM",
  crash_signal: "a crash",
  stopped_by_master: "its master's wish",
  stopped_by_process: "another program's wish",
  signal_unseen: "an unseen sender's signal",
  boot_error: "it failed to boot",
  app_load_error: "its application did not load",
  error_exit: "an error of its own",
  clean_exit: "a clean end",
  recycled: "a recycle",
  ended_with_master: "its master's end",
  stopped_by_manager: "its service manager",
  unknown: "not known",
};

/** A death certificate in words; one that this page does not know stays readable. */
export function deathWords(death: string): string {
  return DEATHS[death] ?? death.replaceAll("_", " ");
}
