import { describe, expect, it } from "vitest";
import { readAddress, tokenIn, writeAddress } from "../src/model/address";
import { isLive, NO_FILTERS, streamFilters, toggled, writeFilters } from "../src/model/filters";

describe("the address", () => {
  it("keeps every filter and the open event", () => {
    const place = {
      eventId: "019a-1",
      filters: {
        from: "-1h",
        to: "2026-11-23T01:00:00Z",
        severity: "critical" as const,
        kinds: ["worker.*", "process.oom_killed"],
        hosts: ["web-3", "web & 4"],
        services: ["shop-web"],
        q: "OOM & more",
      },
    };
    expect(readAddress(writeAddress(place))).toEqual(place);
  });

  it("is short where nothing is set", () => {
    expect(writeAddress({ eventId: null, filters: NO_FILTERS })).toBe("#/");
    expect(writeAddress({ eventId: "a", filters: NO_FILTERS })).toBe("#/event/a");
  });

  it("takes nonsense for no filter", () => {
    expect(readAddress("#/?severity=huge&host=").filters).toEqual(NO_FILTERS);
    expect(readAddress("")).toEqual({ eventId: null, filters: NO_FILTERS });
    expect(readAddress("#/event/%").eventId).toBe("%");
  });

  it.each([
    ["#token=rfx_op_a-b", "rfx_op_a-b"],
    ["#/?token=x", "x"],
    ["#/event/token", null],
    ["", null],
  ])("finds the token of %s", (hash, token) => expect(tokenIn(hash)).toBe(token));
});

describe("filters", () => {
  it("asks the stream for no time range", () => {
    const filters = { ...NO_FILTERS, from: "-1h", hosts: ["a", "b"], q: "  x " };
    expect(streamFilters(filters).toString()).toBe("host=a&host=b&q=x");
    expect(writeFilters(filters).get("from")).toBe("-1h");
  });

  it("is live unless the range has an end", () => {
    expect(isLive({ ...NO_FILTERS, from: "-1h" })).toBe(true);
    expect(isLive({ ...NO_FILTERS, to: "2026-11-23T01:00:00Z" })).toBe(false);
  });

  it("adds a value and takes it away", () => {
    expect(toggled(["a"], "b")).toEqual(["a", "b"]);
    expect(toggled(["a", "b"], "a")).toEqual(["b"]);
  });
});
