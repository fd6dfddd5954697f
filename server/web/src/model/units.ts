/** How amounts and spans of time read, in the same units as the sentences of the timeline. Pure. */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** `183.0 MiB`, `4.0 KiB`, `1.50 GiB`, `512 B`. */
export function size(bytes: number): string {
  const amount = Math.abs(bytes);
  if (amount >= GIB) return `${(bytes / GIB).toFixed(2)} GiB`;
  if (amount >= MIB) return `${(bytes / MIB).toFixed(1)} MiB`;
  if (amount >= KIB) return `${(bytes / KIB).toFixed(1)} KiB`;
  return `${bytes} B`;
}

/** `191,889,408 bytes`. */
export function exactBytes(bytes: number): string {
  return `${grouped(bytes)} bytes`;
}

/** `191,889,408`. */
export function grouped(value: number): string {
  return new Intl.NumberFormat("en-GB", { maximumFractionDigits: 6 }).format(value);
}

/** A span in its two largest units: `640 µs`, `4 ms`, `1.72 s`, `3 min 12 s`, `2 h 5 min`, `4 d 1 h`. */
export function span(microseconds: number): string {
  const us = Math.abs(microseconds);
  if (us < 1_000) return `${Math.round(us)} µs`;
  if (us < 999_500) return `${us < 9_950 ? trimmed(us / 1_000, 1) : Math.round(us / 1_000)} ms`;
  const seconds = us / 1e6;
  if (seconds < 59.95) return `${trimmed(seconds, seconds < 9.995 ? 2 : 1)} s`;
  return coarse(Math.round(seconds));
}

/** The gap from a cause to its effect: `+1.83 s`; clocks that disagree give a minus. */
export function gap(microseconds: number): string {
  return `${microseconds < 0 ? "−" : "+"}${span(microseconds)}`;
}

/** Every digit of a gap: `1.834512 s`. */
export function exactGap(microseconds: number): string {
  return `${(microseconds / 1e6).toFixed(6)} s`;
}

/** A span for reading at a glance, never finer than a second: `2 s`, `14 min`, `3 h`, `5 d`. */
export function roughSpan(microseconds: number): string {
  const seconds = Math.max(0, Math.round(microseconds / 1e6));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

function coarse(seconds: number): string {
  const scales: [number, string, number, string][] = [
    [86_400, "d", 3_600, "h"],
    [3_600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  const [unit, name, partUnit, partName] = scales.find(([limit]) => seconds >= limit) ?? [60, "min", 1, "s"];
  const part = Math.floor((seconds % unit) / partUnit);
  return `${Math.floor(seconds / unit)} ${name}${part ? ` ${part} ${partName}` : ""}`;
}

function trimmed(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.0+$/, "");
}
