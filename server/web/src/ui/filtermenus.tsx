/** The menus of the filter bar. */
import { useState } from "preact/hooks";
import { fieldValue, fromField, zoneName } from "../model/clock";
import { RANGES, toggled } from "../model/filters";
import { KIND_GROUPS, type KindGroup } from "../model/kinds";
import { hostNames, serviceNames } from "../state/hosts";
import { nowUs } from "../state/now";
import { filters, setFilters } from "../state/place";
import { zone } from "../state/prefs";
import { list } from "../state/timeline";
import { ChevronIcon } from "./icons";
import { Popover } from "./popover";

export function RangeMenu() {
  const { from, to } = filters.value;
  const preset = RANGES.find((range) => range.from === from && to === null);
  const label = preset?.label ?? (from || to ? "Custom range" : "All time");
  return (
    <Popover
      class={`menu-button${from || to ? " on" : ""}`}
      name={`Time range: ${label}`}
      label={<Label text={label} />}
    >
      <div class="menu">
        <Choice
          name="range"
          label="All time"
          checked={from === null && to === null}
          choose={() => setFilters({ from: null, to: null })}
        />
        {RANGES.map((range) => (
          <Choice
            key={range.from}
            name="range"
            label={range.label}
            checked={preset === range}
            choose={() => setFilters({ from: range.from, to: null })}
          />
        ))}
        <CustomRange />
      </div>
    </Popover>
  );
}

function CustomRange() {
  const { from, to } = filters.value;
  const [start, setStart] = useState(fieldOf(from));
  const [end, setEnd] = useState(fieldOf(to));
  const valid = fromField(start, zone.value) !== null || fromField(end, zone.value) !== null;
  return (
    <form
      class="custom-range"
      onSubmit={(submit) => {
        submit.preventDefault();
        setFilters({ from: isoOf(start), to: isoOf(end) });
      }}
    >
      <label>
        From
        <input type="datetime-local" value={start} onInput={(input) => setStart(input.currentTarget.value)} />
      </label>
      <label>
        To
        <input type="datetime-local" value={end} onInput={(input) => setEnd(input.currentTarget.value)} />
      </label>
      <span class="hint">In {zoneName(zone.value, nowUs.value)}. Without an end the timeline stays live.</span>
      <button type="submit" class="button" disabled={!valid}>
        Show this range
      </button>
    </form>
  );
}

function fieldOf(text: string | null): string {
  const ms = text === null ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? "" : fieldValue(ms * 1_000, zone.peek());
}

function isoOf(field: string): string | null {
  const us = fromField(field, zone.peek());
  return us === null ? null : new Date(us / 1_000).toISOString().replace(".000Z", "Z");
}

export function KindMenu() {
  const { kinds } = filters.value;
  const chosen = (group: KindGroup) => group.patterns.every((pattern) => kinds.includes(pattern));
  return (
    <Popover class={`menu-button${kinds.length ? " on" : ""}`} name="Kinds of events" label={<Label text="Kind" />}>
      <fieldset class="menu">
        <legend class="visually-hidden">Kinds of events</legend>
        {KIND_GROUPS.map((group) => (
          <Check
            key={group.key}
            label={group.label}
            checked={chosen(group)}
            change={() => {
              const others = kinds.filter((kind) => !group.patterns.includes(kind));
              setFilters({ kinds: chosen(group) ? others : [...others, ...group.patterns] });
            }}
          />
        ))}
      </fieldset>
    </Popover>
  );
}

export function HostMenu() {
  const { hosts } = filters.value;
  const seen = list.value.events.map((event) => event.host);
  return (
    <NameMenu
      label="Host"
      names={[...hostNames.value, ...seen, ...hosts]}
      chosen={hosts}
      change={(names) => setFilters({ hosts: names })}
    />
  );
}

export function ServiceMenu() {
  const { services } = filters.value;
  const seen = list.value.events.flatMap((event) => event.service ?? []);
  return (
    <NameMenu
      label="Service"
      names={[...serviceNames.value, ...seen, ...services]}
      chosen={services}
      change={(names) => setFilters({ services: names })}
    />
  );
}

interface NameMenuProps {
  label: string;
  names: string[];
  chosen: string[];
  change: (names: string[]) => void;
}

function NameMenu({ label, names, chosen, change }: NameMenuProps) {
  const offered = [...new Set(names)].sort((a, b) => a.localeCompare(b));
  return (
    <Popover class={`menu-button${chosen.length ? " on" : ""}`} name={`${label}s`} label={<Label text={label} />}>
      <fieldset class="menu">
        <legend class="visually-hidden">{label}s</legend>
        {offered.length === 0 && <p class="hint">None is known yet.</p>}
        {offered.map((name) => (
          <Check key={name} label={name} checked={chosen.includes(name)} change={() => change(toggled(chosen, name))} />
        ))}
      </fieldset>
    </Popover>
  );
}

function Label({ text }: { text: string }) {
  return (
    <>
      {text}
      <ChevronIcon />
    </>
  );
}

function Check({ label, checked, change }: { label: string; checked: boolean; change: () => void }) {
  return (
    <label class="menu-item">
      <input type="checkbox" checked={checked} onChange={change} />
      {label}
    </label>
  );
}

function Choice(props: { name: string; label: string; checked: boolean; choose: () => void }) {
  return (
    <label class="menu-item">
      <input type="radio" name={props.name} checked={props.checked} onChange={props.choose} />
      {props.label}
    </label>
  );
}
