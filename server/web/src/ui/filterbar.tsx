/** The bar of filters: search, time range, severity, kinds, hosts, services, and a chip for each that is set. */
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Severity } from "../api/types";
import { fullUtc, shortDay, timeOfDay, type Zone } from "../model/clock";
import { type Filters, isFiltered, NO_FILTERS, RANGES } from "../model/filters";
import { KIND_GROUPS, patternLabel } from "../model/kinds";
import { filters, setFilters } from "../state/place";
import { zone } from "../state/prefs";
import { HostMenu, KindMenu, RangeMenu, ServiceMenu } from "./filtermenus";
import { CloseIcon, SearchIcon } from "./icons";

const TYPING_MS = 250;
export const SEARCH_ID = "search";

export function FilterBar() {
  const bar = useRef<HTMLElement>(null);
  useHeightProperty(bar);
  return (
    <section ref={bar} class="filterbar" aria-label="Filters">
      <div class="filter-row">
        <Search />
        <div class="choices">
          <RangeMenu />
          <SeverityChoice />
          <KindMenu />
          <HostMenu />
          <ServiceMenu />
        </div>
      </div>
      <Chips />
    </section>
  );
}

/** Tells the style sheet how high the bar is, so that the names of days stop right below it. */
function useHeightProperty(bar: RefObject<HTMLElement>): void {
  useEffect(() => {
    const element = bar.current;
    const scroller = element?.parentElement;
    if (!element || !scroller) return;
    const watch = new ResizeObserver(() =>
      scroller.style.setProperty("--filterbar-height", `${element.offsetHeight}px`),
    );
    watch.observe(element);
    return () => watch.disconnect();
  }, [bar]);
}

function Search() {
  const [text, setText] = useState(filters.value.q);
  const timer = useRef<ReturnType<typeof setTimeout>>();
  const asked = filters.value.q;
  useEffect(() => setText(asked), [asked]);

  function typed(value: string): void {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setFilters({ q: value.trim() }, { replace: true }), TYPING_MS);
  }

  return (
    <label class="search">
      <SearchIcon />
      <span class="visually-hidden">Search the sentences</span>
      <input
        id={SEARCH_ID}
        type="search"
        placeholder="Search"
        value={text}
        spellcheck={false}
        autocomplete="off"
        onInput={(input) => typed(input.currentTarget.value)}
      />
      <kbd>/</kbd>
    </label>
  );
}

const LEAST: { value: Severity | null; label: string; title: string }[] = [
  { value: null, label: "All", title: "Every severity" },
  { value: "warning", label: "Warning +", title: "Warnings and critical events" },
  { value: "critical", label: "Critical", title: "Critical events only" },
];

function SeverityChoice() {
  return (
    <fieldset class="segments">
      <legend class="visually-hidden">Severity</legend>
      {LEAST.map(({ value, label, title }) => (
        <label key={label} title={title} class={filters.value.severity === value ? "on" : ""}>
          <input
            type="radio"
            name="severity"
            class="visually-hidden"
            checked={filters.value.severity === value}
            onChange={() => setFilters({ severity: value })}
          />
          {label}
        </label>
      ))}
    </fieldset>
  );
}

interface ChipValue {
  key: string;
  name: string;
  value: string;
  title?: string;
  without: Partial<Filters>;
}

function Chips() {
  const chips = chipsOf(filters.value, zone.value);
  if (!isFiltered(filters.value)) return null;
  return (
    <ul class="chips" aria-label="Filters that are set">
      {chips.map((chip) => (
        <li key={chip.key} class="chip" title={chip.title}>
          <span class="dim">{chip.name}</span> {chip.value}
          <button
            type="button"
            aria-label={`Remove the filter ${chip.name} ${chip.value}`}
            onClick={() => setFilters(chip.without)}
          >
            <CloseIcon size={12} />
          </button>
        </li>
      ))}
      <li>
        <button type="button" class="button quiet small" onClick={() => setFilters(NO_FILTERS)}>
          Clear all
        </button>
      </li>
    </ul>
  );
}

function chipsOf(set: Filters, at: Zone): ChipValue[] {
  const chips: ChipValue[] = [];
  if (set.from || set.to) chips.push(rangeChip(set, at));
  if (set.severity) {
    const value = set.severity === "critical" ? "critical" : "warning and worse";
    chips.push({ key: "severity", name: "severity", value, without: { severity: null } });
  }
  chips.push(...kindChips(set));
  for (const host of set.hosts) {
    chips.push({
      key: `h/${host}`,
      name: "host",
      value: host,
      without: { hosts: set.hosts.filter((h) => h !== host) },
    });
  }
  for (const name of set.services) {
    const services = set.services.filter((service) => service !== name);
    chips.push({ key: `s/${name}`, name: "service", value: name, without: { services } });
  }
  if (set.q) chips.push({ key: "q", name: "text", value: `“${set.q}”`, without: { q: "" } });
  return chips;
}

function rangeChip(set: Filters, at: Zone): ChipValue {
  const without = { from: null, to: null };
  const preset = set.to === null ? RANGES.find((range) => range.from === set.from) : undefined;
  if (preset) return { key: "range", name: "time", value: preset.label.toLowerCase(), without };
  const value = `${moment(set.from, at) ?? "start"} – ${moment(set.to, at) ?? "now"}`;
  const exact = [set.from, set.to].map((text) => (text && !Number.isNaN(Date.parse(text)) ? utc(text) : (text ?? "")));
  return { key: "range", name: "time", value, title: exact.join(" – "), without };
}

/** Groups whose patterns are all set make one chip. */
function kindChips(set: Filters): ChipValue[] {
  const left = new Set(set.kinds);
  const chips: ChipValue[] = [];
  for (const group of KIND_GROUPS) {
    if (!group.patterns.every((pattern) => left.has(pattern))) continue;
    for (const pattern of group.patterns) left.delete(pattern);
    const kinds = set.kinds.filter((kind) => !group.patterns.includes(kind));
    chips.push({ key: `g/${group.key}`, name: "kind", value: group.label, without: { kinds } });
  }
  for (const kind of left) {
    const kinds = set.kinds.filter((other) => other !== kind);
    chips.push({ key: `k/${kind}`, name: "kind", value: patternLabel(kind), title: kind, without: { kinds } });
  }
  return chips;
}

function moment(text: string | null, at: Zone): string | null {
  if (text === null) return null;
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) return text;
  return `${shortDay(ms * 1_000, at)} ${timeOfDay(ms * 1_000, at).slice(0, 5)}`;
}

function utc(text: string): string {
  return fullUtc(Date.parse(text) * 1_000);
}
