/** The strip of hosts: who is live, what each hears from its kernel, its services and their workers. */
import type { Host, Service } from "../api/types";
import { roughSpan, size, span } from "../model/units";
import { blindSpots, hosts } from "../state/hosts";
import { nowUs } from "../state/now";
import { setFilters } from "../state/place";
import { hostsView } from "../state/prefs";
import { ChevronIcon, EyeOffIcon } from "./icons";
import { isRoomy } from "./media";
import { ProbeChip, signalName } from "./probe";

/** So many hosts are shown unfolded unless the reader chose otherwise. */
const FEW_HOSTS = 3;
const MOST_BLIND_SPOTS = 3;

export function HostStrip() {
  const all = hosts.value;
  if (all === null || all.length === 0) return null;
  const open = hostsView.value === "auto" ? isRoomy.value && all.length <= FEW_HOSTS : hostsView.value === "open";
  const silent = all.filter((host) => host.state === "silent").length;
  return (
    <section class="hosts" aria-label="Hosts">
      <div class="hosts-head">
        <button
          type="button"
          class="hosts-toggle"
          aria-expanded={open}
          onClick={() => {
            hostsView.value = open ? "folded" : "open";
          }}
        >
          <ChevronIcon />
          <h2>Hosts</h2>
        </button>
        {open ? (
          <span class="hosts-count">
            {all.length - silent} live{silent > 0 && <b class="bad">, {silent} silent</b>}
          </span>
        ) : (
          all.map((host) => <HostPill key={host.name} host={host} />)
        )}
      </div>
      {open && (
        <ul class="host-rows">
          {all.map((host) => (
            <HostRow key={host.name} host={host} />
          ))}
        </ul>
      )}
      <BlindSpots />
    </section>
  );
}

function HostPill({ host }: { host: Host }) {
  const workers = host.status.services.reduce((sum, service) => sum + service.workers.length, 0);
  return (
    <button
      type="button"
      class={`host-pill ${host.state}`}
      title={`Only events of ${host.name}`}
      onClick={() => setFilters({ hosts: [host.name] })}
    >
      <StateDot host={host} />
      {host.name}
      <span class="dim">{host.state === "silent" ? lastSeen(host) : `${workers} workers`}</span>
    </button>
  );
}

function HostRow({ host }: { host: Host }) {
  const { status } = host;
  return (
    <li class={`host-row ${host.state}`}>
      <div class="host-name">
        <StateDot host={host} />
        <button
          type="button"
          class="plain"
          title={`Only events of ${host.name}`}
          onClick={() => setFilters({ hosts: [host.name] })}
        >
          {host.name}
        </button>
        <span class={host.state === "silent" ? "bad" : "dim"}>{lastSeen(host)}</span>
      </div>
      <ul class="services">
        {status.services.map((service) => (
          <ServiceLanes key={`${service.name}/${service.master_pid}`} service={service} />
        ))}
        {status.services.length === 0 && <li class="dim">no service found yet</li>}
      </ul>
      <div class="probes">
        {status.probes.map((probe) => (
          <ProbeChip key={probe.signal} probe={probe} />
        ))}
        {status.probes.length === 0 && <span class="probe off">no probes reported</span>}
      </div>
      <AgentNumbers host={host} />
    </li>
  );
}

function ServiceLanes({ service }: { service: Service }) {
  const ready = service.workers.filter((worker) => worker.state === "ready").length;
  return (
    <li class="service">
      <button
        type="button"
        class="plain service-name"
        title={`${service.kind} master pid ${service.master_pid}${service.listeners.map((at) => `\n${at}`).join("")}`}
        onClick={() => setFilters({ services: [service.name] })}
      >
        {service.name}
      </button>
      <ul class="lanes" aria-label={`${service.workers.length} workers, ${ready} ready`}>
        {service.workers.map((worker) => (
          <li
            key={worker.slot}
            class={`slot ${worker.state}`}
            title={`Worker ${worker.slot}: ${worker.state} for ${span(Math.max(0, nowUs.value - worker.since_us))}\npid ${worker.pid}, generation ${worker.generation}`}
          >
            {worker.slot}
            <span class="visually-hidden"> {worker.state}</span>
          </li>
        ))}
      </ul>
    </li>
  );
}

function AgentNumbers({ host: { status } }: { host: Host }) {
  const lost = Object.values(status.lost).reduce((sum, count) => sum + count, 0);
  return (
    <dl class="agent" title={`reflexd ${status.version || "?"} on Linux ${status.kernel || "?"}`}>
      <div>
        <dt>CPU</dt>
        <dd>{status.cpu_percent === null ? "–" : `${status.cpu_percent.toFixed(1)} %`}</dd>
      </div>
      <div>
        <dt>RSS</dt>
        <dd>{status.rss_bytes === null ? "–" : size(status.rss_bytes)}</dd>
      </div>
      <div class={lost > 0 ? "bad" : ""}>
        <dt>lost</dt>
        <dd>{lost}</dd>
      </div>
    </dl>
  );
}

function BlindSpots() {
  const spots = blindSpots.value;
  if (spots.length === 0) return null;
  return (
    <ul class="blind">
      {spots.slice(0, MOST_BLIND_SPOTS).map(({ host, probes }) => (
        <li key={host}>
          <EyeOffIcon />
          <span>
            <b>{probes.map((probe) => signalName(probe.signal)).join(", ")}</b> {probes.length === 1 ? "is" : "are"} not
            heard on <b>{host}</b>
            {probes[0]?.reason ? `: ${probes[0].reason}` : "."}
          </span>
        </li>
      ))}
      {spots.length > MOST_BLIND_SPOTS && <li>And so it is on {spots.length - MOST_BLIND_SPOTS} more hosts.</li>}
    </ul>
  );
}

function StateDot({ host }: { host: Host }) {
  return (
    <span class={`state-dot ${host.state}`} role="img" aria-label={host.state}>
      {host.state === "silent" && "×"}
    </span>
  );
}

function lastSeen(host: Host): string {
  if (host.state === "live") return "live";
  if (host.last_seen_us === null) return "never heard";
  return `silent for ${roughSpan(nowUs.value - host.last_seen_us)}`;
}
