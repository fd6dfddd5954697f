import { describe, expect, it } from "vitest";
import { facts, memoryPicture } from "../src/model/facts";

const shown = (attrs: Parameters<typeof facts>[0]) => facts(attrs).map(({ name, value }) => `${name}: ${value}`);

describe("facts", () => {
  it("reads units from names", () => {
    expect(shown({ anon_bytes: 191_889_408, age_s: 192.113, boot_ms: 1_720, cpu_percent: 0.25 })).toEqual([
      "age: 3 min 12 s",
      "boot: 1.72 s",
      "anon: 183.0 MiB",
      "CPU: 0.25 %",
    ]);
  });

  it("names signals, deaths and truths", () => {
    expect(shown({ signal: 9, death: "kernel_oom", was_ready: true })).toEqual([
      "died of: the kernel's OOM killer",
      "signal: SIGKILL",
      "was ready: yes",
    ]);
  });

  it("reads rates from names", () => {
    expect(shown({ slope_bytes_per_s: 1_048_576, growth_per_s: 2.5 })).toEqual([
      "growth: 2.5 a second",
      "slope: 60.0 MiB a minute",
    ]);
  });

  it("puts texts of lines last, with the whole width", () => {
    const found = facts({ stack: "MainThread\n    innermost (app.py:3)", workers: 2 });
    expect(found.map((fact) => [fact.name, fact.isListing ?? false])).toEqual([
      ["workers", false],
      ["stack", true],
    ]);
  });

  it("leaves process numbers without separators", () => {
    expect(shown({ victim_pid: 41_210, records: 41_210 })).toEqual(["records: 41,210", "victim pid: 41210"]);
  });

  it("keeps the exact value of what it rounds", () => {
    expect(facts({ limit_bytes: 201_326_592 })[0]?.exact).toBe("201,326,592 bytes");
    expect(facts({ cgroup: "/shop" })[0]?.exact).toBeNull();
  });
});

describe("the picture of memory", () => {
  it("shows what of the limit was not the victim's", () => {
    const attrs = { limit_bytes: 200, usage_bytes: 190, anon_bytes: 100, file_bytes: 20, shmem_bytes: 0 };
    expect(memoryPicture(attrs)).toEqual({ limit: 200, anon: 100, file: 20, shmem: 0, other: 70 });
  });

  it("is none without a limit, or without the victim's memory", () => {
    expect(memoryPicture({ anon_bytes: 100 })).toBeNull();
    expect(memoryPicture({ limit_bytes: 100, anon_bytes: 0 })).toBeNull();
  });
});
