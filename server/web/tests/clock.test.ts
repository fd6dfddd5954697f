import { expect, it } from "vitest";
import { dayKey, dayName, fieldValue, fromField, fullUtc, milliseconds, nearDay, timeOfDay } from "../src/model/clock";

const AT = Date.UTC(2026, 10, 23, 1, 11, 9, 123) * 1_000 + 456;
const DAY = 86_400_000_000;

it("shows seconds, milliseconds and the whole moment", () => {
  expect(timeOfDay(AT, "utc")).toBe("01:11:09");
  expect(milliseconds(AT)).toBe("123");
  expect(fullUtc(AT)).toBe("2026-11-23 01:11:09.123456 UTC");
});

it("names days", () => {
  expect(dayKey(AT, "utc")).toBe("2026-11-23");
  expect(dayName(AT, "utc")).toBe("Monday 23 November 2026");
  expect(nearDay(AT, AT, "utc")).toBe("Today");
  expect(nearDay(AT - DAY, AT, "utc")).toBe("Yesterday");
  expect(nearDay(AT - 2 * DAY, AT, "utc")).toBeNull();
});

it("writes midnight as 00 and not as 24", () => {
  expect(timeOfDay(Date.UTC(2026, 0, 1) * 1_000, "utc")).toBe("00:00:00");
});

it("reads back what it writes into a date field", () => {
  const minute = Date.UTC(2026, 10, 23, 1, 11) * 1_000;
  for (const zone of ["utc", "local"] as const) expect(fromField(fieldValue(minute, zone), zone)).toBe(minute);
  expect(fromField("", "utc")).toBeNull();
});
