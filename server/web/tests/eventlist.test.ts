import { describe, expect, it } from "vitest";
import { EMPTY_LIST, insert, keepNewest } from "../src/model/eventlist";
import { CHUNK_ROWS, EMPTY_LAYOUT, layOut } from "../src/model/layout";
import { made } from "./make";

const ids = (list: { events: readonly { id: string }[] }) => list.events.map((event) => event.id);
const many = (from: number, count: number) =>
  Array.from({ length: count }, (_, index) => made(`e${from + index}`, (from + index) * 1_000));

describe("the list of events", () => {
  it("is newest first, each event once", () => {
    const list = insert(EMPTY_LIST, [made("a", 1), made("c", 3), made("a", 1)]);
    expect(ids(insert(list, [made("b", 2), made("c", 3)]))).toEqual(["c", "b", "a"]);
  });

  it("is the same object when nothing is new", () => {
    const list = insert(EMPTY_LIST, [made("a", 1)]);
    expect(insert(list, [made("a", 1)])).toBe(list);
  });

  it("orders equal times by id", () => {
    expect(ids(insert(EMPTY_LIST, [made("a", 1), made("b", 1)]))).toEqual(["b", "a"]);
  });

  it("lets the oldest go, and knows them no longer", () => {
    const list = keepNewest(insert(EMPTY_LIST, many(0, 5)), 3);
    expect(ids(list)).toEqual(["e4", "e3", "e2"]);
    expect(list.ids.has("e0")).toBe(false);
  });
});

describe("chunks", () => {
  const chunks = (layout: ReturnType<typeof layOut>) => layout.days.flatMap((day) => day.chunks);

  it("stay the same objects when newer events and older pages come", () => {
    const list = insert(EMPTY_LIST, many(1_000, CHUNK_ROWS * 3));
    const before = layOut(list, "utc", EMPTY_LAYOUT);
    const after = layOut(insert(list, many(1_000 + CHUNK_ROWS * 3, 5)), "utc", before);
    expect(chunks(after).slice(-3)).toEqual(chunks(before));
    for (const chunk of chunks(before)) expect(chunks(after)).toContain(chunk);

    const older = layOut(insert(list, many(1_000 - CHUNK_ROWS, CHUNK_ROWS)), "utc", after);
    for (const chunk of chunks(before)) expect(chunks(older)).toContain(chunk);
  });

  it("stay the same when the oldest are let go", () => {
    const list = insert(EMPTY_LIST, many(0, CHUNK_ROWS * 4));
    const before = layOut(list, "utc", EMPTY_LAYOUT);
    const after = layOut(keepNewest(list, CHUNK_ROWS * 2), "utc", before);
    expect(chunks(after)).toHaveLength(2);
    for (const chunk of chunks(after)) expect(chunks(before)).toContain(chunk);
  });

  it("hold no more than a screenful each, whatever comes", () => {
    let list = insert(EMPTY_LIST, many(500, 100));
    list = insert(insert(list, many(600, 77)), many(423, 77));
    for (const chunk of chunks(layOut(list, "utc", EMPTY_LAYOUT))) {
      expect(chunk.rows.length).toBeLessThanOrEqual(CHUNK_ROWS);
    }
  });

  it("begin anew with each day", () => {
    const day = 86_400_000_000;
    const layout = layOut(insert(EMPTY_LIST, [made("a", 0), made("b", day)]), "utc", EMPTY_LAYOUT);
    expect(layout.days.map((each) => each.count)).toEqual([1, 1]);
  });

  it("tell how long it was quiet between bursts", () => {
    const events = [made("a", 0), made("b", 1_000_000), made("c", 121_000_000)];
    const layout = layOut(insert(EMPTY_LIST, events), "utc", EMPTY_LAYOUT);
    expect(events.map((event) => layout.rowOf.get(event.id)?.quietUs)).toEqual([null, 120_000_000, null]);
  });
});
