import { describe, expect, it } from "vitest";
import { chainTree } from "../src/model/chaintree";
import { madeChain } from "./make";

const drawn = (causes: Record<string, string | null>) =>
  chainTree(madeChain(causes)).nodes.map(
    (node) => `${node.event.id}@${node.lane}<${node.from ?? ""}[${node.passes}]${node.below ? "v" : ""}`,
  );

describe("a chain's drawing", () => {
  it("goes straight down from a cause to its only effect", () => {
    expect(drawn({ oom: null, exit: "oom", start: "exit", ready: "start" })).toEqual([
      "oom@0<[]v",
      "exit@0<0[]v",
      "start@0<0[]v",
      "ready@0<0[]",
    ]);
  });

  it("branches to the right where a cause has several effects", () => {
    expect(drawn({ boot: null, w0: "boot", w1: "boot", r0: "w0", r1: "w1" })).toEqual([
      "boot@0<[]v",
      "w0@1<0[0]v",
      "r0@1<1[0]",
      "w1@1<0[]v",
      "r1@1<1[]",
    ]);
  });

  it("names the cause that is not stored", () => {
    const tree = chainTree(madeChain({ exit: "lost", start: "exit" }));
    expect(tree.nodes.map((node) => node.missing)).toEqual(["lost", null]);
  });

  it("measures from the first event to the last", () => {
    expect(chainTree(madeChain({ a: null, b: "a", c: "b" })).lengthUs).toBe(2_000);
    expect(chainTree(madeChain({})).lengthUs).toBe(0);
  });
});
