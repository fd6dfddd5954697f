import { expect, it } from "vitest";
import { readHosts } from "../src/api/hosts";

it("reads what an agent says", () => {
  const [host] = readHosts({
    hosts: [
      {
        name: "web-3",
        state: "live",
        last_seen_us: 5,
        status: {
          cpu_percent: 0.2,
          lost: { fork: 2 },
          probes: [{ signal: "oom", state: "degraded", rung: "memory.events", reason: "no BTF", records: 3 }],
          services: [{ name: "shop", kind: "gunicorn", workers: [{ slot: 1, state: "ready" }, { slot: 0 }] }],
        },
      },
    ],
  });
  expect(host?.status.probes[0]?.state).toBe("degraded");
  expect(host?.status.probes[0]).toMatchObject({ records: 3, lost: null, ns_per_event: null });
  expect(host?.status.lost).toEqual({ fork: 2 });
  expect(host?.status.services[0]?.workers.map((worker) => [worker.slot, worker.state])).toEqual([
    [0, "unknown"],
    [1, "ready"],
  ]);
});

it("takes an unknown probe state for off: not knowing is no good news", () => {
  const [host] = readHosts({ hosts: [{ name: "a", status: { probes: [{ signal: "oom", state: "?" }] } }] });
  expect(host?.status.probes[0]?.state).toBe("off");
  expect(host?.state).toBe("silent");
});

it("survives a status of any shape", () => {
  for (const status of [null, [], "x", { probes: 1, services: [null], lost: "no" }]) {
    expect(readHosts({ hosts: [{ name: "a", status }] })).toHaveLength(1);
  }
  expect(readHosts(null)).toEqual([]);
});
