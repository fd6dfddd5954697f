import { describe, expect, it } from "vitest";
import { exactBytes, exactGap, gap, roughSpan, size, span } from "../src/model/units";

describe("sizes", () => {
  it.each([
    [0, "0 B"],
    [512, "512 B"],
    [4_096, "4.0 KiB"],
    [191_889_408, "183.0 MiB"],
    [1_610_612_736, "1.50 GiB"],
  ])("%d bytes read %s", (bytes, words) => expect(size(bytes)).toBe(words));

  it("keeps every digit for hovering", () => expect(exactBytes(191_889_408)).toBe("191,889,408 bytes"));
});

describe("spans", () => {
  it.each([
    [0, "0 µs"],
    [640, "640 µs"],
    [4_112, "4.1 ms"],
    [4_000, "4 ms"],
    [860_000, "860 ms"],
    [999_700, "1 s"],
    [1_720_331, "1.72 s"],
    [12_340_000, "12.3 s"],
    [59_960_000, "1 min"],
    [192_000_000, "3 min 12 s"],
    [7_500_000_000, "2 h 5 min"],
    [349_200_000_000, "4 d 1 h"],
  ])("%d µs read %s", (us, words) => expect(span(us)).toBe(words));

  it("marks a gap's direction, also when two clocks disagree", () => {
    expect(gap(1_834_000)).toBe("+1.83 s");
    expect(gap(-2_000)).toBe("−2 ms");
    expect(exactGap(1_834_512)).toBe("1.834512 s");
  });

  it("is never finer than a second at a glance", () => {
    expect(roughSpan(90_000_000)).toBe("2 min");
    expect(roughSpan(-5)).toBe("0 s");
    expect(roughSpan(200_000_000_000)).toBe("2 d");
  });
});
