import { describe, expect, it } from "vitest";
import { rails } from "../src/model/rails";
import { made } from "./make";

/** Rows newest first, each `id` or `id<cause`, drawn as `lane:up,down[passes]`. */
function drawn(rows: string[], breaks: number[] = []): string[] {
  const events = rows.map((row, index) => {
    const [id = "", cause = null] = row.split("<");
    return made(id, -index, { cause });
  });
  return rails(events, new Set(breaks)).map(
    ({ lane, up, down, passes }) => `${lane}:${up ? "u" : ""}${down ? "d" : ""}${passes.length ? `[${passes}]` : ""}`,
  );
}

describe("rails", () => {
  it("join a chain from its last effect down to its root", () => {
    expect(drawn(["c<b", "b<a", "a"])).toEqual(["0:d", "0:ud", "0:u"]);
  });

  it("join effects of one cause that is not on the page", () => {
    expect(drawn(["c<x", "b<x"])).toEqual(["0:d", "0:u"]);
  });

  it("leave strangers alone", () => {
    expect(drawn(["b", "a"])).toEqual(["0:", "0:"]);
  });

  it("run beside each other where two chains interleave", () => {
    expect(drawn(["b<a", "y<x", "a", "x"])).toEqual(["0:d", "1:d[0]", "0:u[1]", "1:u"]);
  });

  it("pass a stranger that stands between", () => {
    expect(drawn(["b<a", "s", "a"])).toEqual(["0:d", "1:[0]", "0:u"]);
  });

  it("do not reach over many rows, nor over midnight", () => {
    const far = ["b<a", ...Array.from({ length: 8 }, (_, index) => `s${index}`), "a"];
    expect(drawn(far).at(0)).toBe("0:");
    expect(drawn(["b<a", "a"], [1])).toEqual(["0:", "0:"]);
  });

  it("never need more lanes than there are", () => {
    const rows = ["b1<a1", "b2<a2", "b3<a3", "b4<a4", "a1", "a2", "a3", "a4"];
    expect(drawn(rows)[3]).toBe("2:[0,1,2]");
  });

  it("survive events that cause each other", () => {
    expect(drawn(["a<b", "b<a"])).toHaveLength(2);
  });
});
