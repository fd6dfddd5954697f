import { describe, expect, it } from "vitest";
import { readReleaseLog, readSnapshot } from "../src/api/artifacts";

describe("readSnapshot", () => {
  it("reads what an agent sends", () => {
    const snapshot = readSnapshot({
      id: "x",
      content: {
        why: "it is 86 % full",
        threads: [{ name: "MainThread", id: 7, is_active: true, has_gil: false, calls: ["report (shop/app.py:40)"] }],
        memory: {
          rss_bytes: 10,
          bytes_by_kind: { heap: 6 },
          largest: [{ name: "[heap]", kind: "heap", rss_bytes: 6 }],
        },
        process: { open_files: 8 },
        cgroup: { anon_bytes: 5 },
        sockets: {
          open: 3,
          connections: [{ own: "10.0.0.2:4001", far: "10.0.0.9:5432", state: "close-wait", unread_bytes: 7 }, 7],
          connections_left_out: 4,
        },
        took: { stacks_ms: 40.2 },
        not_had: ["allocation sites"],
      },
    });
    expect(snapshot.threads?.[0]).toEqual({
      name: "MainThread",
      id: 7,
      active: true,
      gil: false,
      calls: ["report (shop/app.py:40)"],
      callsLeftOut: 0,
    });
    expect(snapshot.connections).toEqual([
      { own: "10.0.0.2:4001", far: "10.0.0.9:5432", state: "close-wait", unread: 7, unsent: 0 },
      { own: "", far: "", state: "", unread: 0, unsent: 0 },
    ]);
    expect(snapshot.connectionsLeftOut).toBe(4);
    expect(snapshot.kinds).toEqual({ heap: 6 });
    expect(snapshot.numbers).toEqual({ rss_bytes: 10, open_files: 8, cgroup_anon_bytes: 5, look_stacks_ms: 40.2 });
  });

  it("says why there are no stacks and no map", () => {
    const content = { threads: null, no_stacks_because: "py-spy: no", memory: null, no_memory_because: "too large" };
    const snapshot = readSnapshot({ content });
    expect([snapshot.threads, snapshot.noStacks]).toEqual([null, "py-spy: no"]);
    expect([snapshot.kinds, snapshot.noMemory]).toEqual([null, "too large"]);
  });

  it.each([
    null,
    7,
    [[]],
    { content: 7 },
    { content: { threads: [7], memory: { largest: "x" }, process: { a: "x" } } },
  ])("reads %j without falling over", (answer) => {
    expect(readSnapshot(answer).numbers).toEqual({});
  });
});

describe("readReleaseLog", () => {
  it("reads what an agent sends", () => {
    const log = readReleaseLog({
      content: { first: [[1, "$ pip"]], left_out: 3, last: [[2, "done"], 7, ["x", null]] },
    });
    expect(log.first).toEqual([{ tsUs: 1, text: "$ pip" }]);
    expect(log.leftOut).toBe(3);
    expect(log.last).toEqual([
      { tsUs: 2, text: "done" },
      { tsUs: 0, text: "" },
      { tsUs: 0, text: "" },
    ]);
  });

  it.each([null, 7, { content: [] }, { content: { first: 7 } }])("reads %j without falling over", (answer) => {
    expect(readReleaseLog(answer)).toEqual({ first: [], leftOut: 0, last: [] });
  });
});
