/** Every colour of text keeps the contrast of WCAG AA (4.5) on every surface that it stands on, light and dark. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const TOKENS = readFileSync(new URL("../src/styles/tokens.css", import.meta.url), "utf8");
const PAIRS: [text: string, surfaces: string[]][] = [
  [
    "text",
    ["bg", "surface", "raised", "sunken", "hover", "critical-soft", "critical-tint", "warning-soft", "accent-soft"],
  ],
  ["text-2", ["bg", "surface", "raised", "sunken", "hover", "critical-tint", "accent-soft"]],
  ["text-3", ["bg", "surface", "raised", "hover", "critical-tint"]],
  ["accent", ["surface", "bg", "accent-soft"]],
  ["on-accent", ["accent-strong"]],
  ["critical", ["surface", "bg", "critical-soft", "critical-tint"]],
  ["warning", ["surface", "bg", "warning-soft"]],
  ["good", ["surface", "good-soft", "hover"]],
];

describe.each([0, 1])("theme %i", (theme) => {
  it.each(PAIRS.flatMap(([text, surfaces]) => surfaces.map((surface) => [text, surface] as const)))(
    "--%s is readable on --%s",
    (text, surface) => expect(contrast(colour(text, theme), colour(surface, theme))).toBeGreaterThanOrEqual(4.5),
  );
});

function colour(name: string, theme: number): string {
  const value = new RegExp(`--${name}: ([^;]+);`).exec(TOKENS)?.[1] ?? "";
  const colours = value.match(/#[0-9a-f]{6}/g) ?? [];
  const chosen = colours[theme] ?? colours[0];
  if (chosen === undefined) throw new Error(`tokens.css has no colour --${name}`);
  return chosen;
}

function contrast(a: string, b: string): number {
  const [high = 0, low = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

/** Relative luminance as WCAG 2.2 defines it. */
function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
