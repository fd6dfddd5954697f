/** The hosts and what their agents say about themselves. */
import { computed, signal } from "@preact/signals";
import { ApiError, fetchHosts } from "../api/client";
import type { Host, Probe } from "../api/types";

export const hosts = signal<Host[] | null>(null);

/** A live host with kernel signals that it does not hear at all, so that silence about them is no good news. */
export interface BlindSpot {
  host: string;
  probes: Probe[];
}

export const blindSpots = computed<BlindSpot[]>(() =>
  (hosts.value ?? [])
    .filter((host) => host.state === "live")
    .map((host) => ({ host: host.name, probes: host.status.probes.filter((probe) => probe.state === "off") }))
    .filter((spot) => spot.probes.length > 0),
);

export const hostNames = computed(() => (hosts.value ?? []).map((host) => host.name));

export const serviceNames = computed(() => [
  ...new Set((hosts.value ?? []).flatMap((host) => host.status.services.map((service) => service.name))),
]);

const POLL_MS = 10_000;
let heardAt = 0;

export function hostsHeard(heard: Host[]): void {
  heardAt = performance.now();
  hosts.value = heard;
}

/** Asks once, then again whenever the live stream has not told of the hosts for a while. Ends with the signal. */
export function watchHosts(until: AbortSignal): void {
  const ask = async () => {
    if (document.hidden || (heardAt > 0 && performance.now() - heardAt < POLL_MS)) return;
    try {
      hostsHeard(await fetchHosts());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  };
  heardAt = 0;
  void ask();
  const timer = setInterval(() => void ask(), POLL_MS);
  until.addEventListener("abort", () => clearInterval(timer));
}
