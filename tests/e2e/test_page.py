"""The timeline page in a real Chromium, served by a real server process, with events that an agent would send."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from agent.wire import PROTOCOL_VERSION, Event, Evidence, WorkerRef, event_to_json, uuid7

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
PAGE = ROOT / "server" / "web" / "dist" / "index.html"
READY_S = 60
PATIENCE_S = 30
MIB = 1024 * 1024
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"),
    pytest.mark.skipif(
        not PAGE.exists(), reason="server/web/dist is missing: npm install --no-save && npm run build in server/web"
    ),
]


@dataclass
class Site:
    """A server process with one host's key; `send` speaks as that host's agent."""

    state: Path
    base: str = ""
    key: str = ""
    spool: str = field(default_factory=lambda: str(uuid4()))
    sent: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def start(self, listen: str = "127.0.0.1:0") -> None:
        """Returns when the server is ready to answer."""
        options = ("--listen", listen, "--state", str(self.state), "--first-token-file", str(self.state / "token"))
        log = (self.state / "server.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "run", *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        said, deadline = "", time.monotonic() + READY_S
        while "ready on " not in said:
            select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            said += self.process.stdout.read() or ""
            assert self.process.poll() is None and time.monotonic() < deadline, (self.state / "server.log").read_text()
        self.base = said.rsplit("ready on ", 1)[1].strip()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)

    def add_host(self, name: str) -> None:
        command = [sys.executable, "-m", "server", "host-key", "add", name, "--state", str(self.state)]
        self.key = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    def send(self, *events: Event) -> None:
        """One batch, stored when this returns."""
        records = [{"seq": self.sent + n, "event": event_to_json(event)} for n, event in enumerate(events, start=1)]
        self.sent += len(events)
        body = {"v": PROTOCOL_VERSION, "spool": self.spool, "status": self.status, "events": records, "samples": []}
        request = Request(f"{self.base}/v1/ingest", json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.key}")
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=30) as answer:
            assert json.load(answer)["rejected"] == []


def now_us() -> int:
    return time.time_ns() // 1000


def made(kind: str, text: str, *, ts_us: int | None = None, severity: Any = "info", **more: Any) -> Event:
    at_us = now_us() if ts_us is None else ts_us
    event_id = uuid7(at_us, uuid4().int & (2**62 - 1))
    return Event(id=event_id, ts_us=at_us, kind=kind, severity=severity, text=text, service="shop", **more)


def oom_story(pid: int) -> tuple[Event, ...]:
    """A worker's OOM kill, its end, and its replacement's start and readiness, now."""
    at_us, old, new = now_us(), WorkerRef(1, 1, pid, 100), WorkerRef(1, 2, pid + 1, 200)
    kill = made(
        "worker.oom_killed",
        f"The kernel's OOM killer killed worker 1 of shop (pid {pid}).",
        ts_us=at_us,
        severity="critical",
        worker=old,
        evidence=(Evidence("oom:mark_victim", f"pid {pid} chosen"),),
        attrs={"death": "kernel_oom", "limit_bytes": 192 * MIB, "anon_bytes": 183 * MIB, "usage_bytes": 191 * MIB},
    )
    exited = made(
        "worker.exited",
        f"Worker 1 of shop (pid {pid}) ended: SIGKILL from the kernel's OOM killer.",
        ts_us=at_us + 4_000,
        severity="critical",
        worker=old,
        cause=kill.id,
        attrs={"death": "kernel_oom", "signal": 9},
    )
    started = made(
        "worker.started", f"The master forked pid {pid + 1}.", ts_us=at_us + 9_000, worker=new, cause=exited.id
    )
    ready = made(
        "worker.ready", f"Worker 1 (pid {pid + 1}) is ready.", ts_us=at_us + 1_729_000, worker=new, cause=started.id
    )
    return kill, exited, started, ready


def agent_status() -> dict[str, Any]:
    off = {"signal": "oom", "state": "off", "rung": "", "reason": "this kernel has no BTF"}
    fork = {"signal": "fork", "state": "attached", "rung": "tp_btf/sched_process_fork", "reason": ""}
    workers = [
        {"slot": slot, "generation": 1, "pid": 90 + slot, "start_ticks": 1, "state": state, "since_us": now_us()}
        for slot, state in enumerate(("ready", "booting"))
    ]
    service = {"name": "shop", "kind": "gunicorn", "master_pid": 89, "listeners": [], "workers": workers}
    return {"version": "0.1.0", "kernel": "6.18", "cpu_percent": 0.2, "rss_bytes": 41 * MIB, "lost": {"fork": 3}} | {
        "probes": [off, fork],
        "services": [service],
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    found.start()
    found.add_host("web-3")
    found.status = agent_status()
    found.send(*oom_story(4000))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture
def blank(browser: Browser) -> Iterator[Page]:
    """A page in a fresh profile. Whatever the browser complains about fails the test, unless it is put in `expected`."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.set_default_timeout(PATIENCE_S * 1000)
    yield page
    expected = getattr(page, "expected_complaints", r"(?!)")
    context.close()
    assert [text for text in complaints if not re.search(expected, text)] == []


@pytest.fixture
def page(blank: Page, site: Site) -> Page:
    """A page that is logged in and shows the timeline, live."""
    blank.goto(f"{site.base}/#token={site.token}")
    blank.wait_for_selector(".row")
    blank.wait_for_selector(".live-state.live")
    return blank


def open_chain_of(page: Page, text: str) -> None:
    page.locator(".row-link", has_text=text).first.click()
    page.wait_for_selector(".chain-node.asked")


def test_a_link_with_the_token_logs_in_and_the_token_leaves_the_address(page: Page, site: Site) -> None:
    assert site.token not in page.url
    assert page.evaluate("history.length") <= 2
    page.go_back(wait_until="commit")
    assert site.token not in page.url


def test_the_token_stays_out_of_reach_of_scripts(page: Page, site: Site) -> None:
    kept = page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert site.token not in kept and "reflex_session" not in kept


def test_a_wrong_token_is_refused_in_words(blank: Page, site: Site) -> None:
    blank.expected_complaints = "401"  # type: ignore[attr-defined]
    blank.goto(site.base)
    blank.fill("#token", "rfx_op_wrong")
    blank.click("button[type=submit]")
    assert "not known" in blank.locator("[role=alert]").inner_text()
    blank.fill("#token", site.token)
    blank.press("#token", "Enter")
    blank.wait_for_selector(".row")


def test_logging_out_ends_the_session(page: Page) -> None:
    page.expected_complaints = "401"  # type: ignore[attr-defined]
    page.click("button[aria-label='Log out']")
    page.wait_for_selector("#token")
    page.reload()
    page.wait_for_selector("#token")


def test_a_live_event_arrives_without_a_reload(page: Page, site: Site) -> None:
    page.evaluate("window.same = true")
    site.send(made("worker.stuck", "Worker 7 of shop is stuck, says the live stream.", severity="critical"))
    row = page.locator(".row", has_text="says the live stream")
    row.wait_for()
    assert "critical" in (row.get_attribute("class") or "")
    assert page.evaluate("window.same") is True


def test_the_chain_opens_by_keyboard_with_its_evidence_and_survives_a_reload(page: Page, site: Site) -> None:
    story = oom_story(5000)
    site.send(*story)
    page.locator(".row", has_text="pid 5000).").first.wait_for()
    page.keyboard.press("j")
    for _ in range(40):
        if "OOM killer killed worker 1 of shop (pid 5000)" in page.evaluate("document.activeElement.textContent"):
            break
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chain-node.asked")
    assert page.url.endswith(f"#/event/{story[0].id}")
    page.reload()
    page.wait_for_selector(".chain-node.asked")
    nodes = [page.locator(".chain-node", has_text=event.text) for event in story]
    texts = page.locator(".chain-node .sentence").all_inner_texts()
    # What the library's playbooks make of the kill stands in the chain as well.
    assert [text for text in texts if "gunicorn-worker-oom" not in text] == [event.text for event in story]
    assert [node.locator(".gap").inner_text() for node in nodes[1:]] == ["+4 ms", "+5 ms", "+1.72 s"]
    asked = page.locator(".chain-node.asked")
    assert "pid 5000 chosen" in asked.inner_text() and "the kernel's OOM killer" in asked.inner_text()
    assert asked.locator("dd[title='201,326,592 bytes']").inner_text() == "192.0 MiB"
    page.keyboard.press("Escape")
    page.wait_for_selector(".panel", state="detached")
    assert "/event/" not in page.url


def test_an_open_chain_grows_while_effects_arrive(page: Page, site: Site) -> None:
    kill, exited, started, ready = oom_story(6000)
    site.send(kill, exited)
    open_chain_of(page, "pid 6000).")
    assert page.locator(".chain-node").count() == 2
    site.send(started, ready)
    page.locator(".chain-node").nth(3).wait_for()


def test_a_cause_that_is_not_stored_is_said_to_be_missing(page: Page, site: Site) -> None:
    lost = uuid7(now_us(), 7)
    site.send(made("worker.exited", "Worker 2 of shop ended for a lost reason.", cause=lost))
    open_chain_of(page, "for a lost reason")
    assert lost in page.locator(".chain-node.missing").inner_text()


def test_a_link_to_an_event_that_is_not_stored_says_so(page: Page) -> None:
    page.expected_complaints = "404"  # type: ignore[attr-defined]
    page.evaluate("location.hash = '#/event/019a0000-0000-7000-8000-000000000000'")
    page.get_by_text("This event is not stored").wait_for()


def test_filters_live_in_the_address_and_leave_by_their_chips(page: Page, site: Site) -> None:
    site.send(made("worker.ready", "Worker 9 of shop is ready, quite calmly."))
    page.locator(".row", has_text="quite calmly").wait_for()
    page.get_by_text("Critical", exact=True).click()
    page.locator(".row", has_text="quite calmly").wait_for(state="detached")
    page.fill("#search", "oom KILLER")
    page.wait_for_url(re.compile("severity=critical&q=oom"))
    page.reload()
    page.wait_for_selector(".row")
    assert all("OOM killer" in text for text in page.locator(".row-link").all_inner_texts())
    page.fill("#search", "nothing says this")
    page.get_by_text("No event matches these filters").wait_for()
    page.click(".chip button[aria-label*=text]")
    page.click(".chip button[aria-label*=severity]")
    page.locator(".row", has_text="quite calmly").wait_for()
    assert page.url.endswith("#/")


def test_a_filtered_timeline_stays_live(page: Page, site: Site) -> None:
    page.fill("#search", "only this one")
    page.get_by_text("No event matches these filters").wait_for()
    site.send(made("worker.ready", "Not that one."), made("worker.ready", "Show only THIS one."))
    page.locator(".row", has_text="only THIS one").wait_for()
    assert page.locator(".row").count() == 1


def test_pausing_holds_new_events_back(page: Page, site: Site) -> None:
    page.keyboard.press("p")
    site.send(made("worker.ready", "Came during the pause."))
    page.get_by_text("1 new").wait_for()
    assert page.locator(".row", has_text="during the pause").count() == 0
    page.keyboard.press("p")
    page.locator(".row", has_text="during the pause").wait_for()


def test_keys_search_help_and_time_zone(page: Page) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    page.keyboard.press("z")
    assert page.locator(".zone").inner_text() == "UTC"


def test_light_and_dark_follow_the_system_until_somebody_chooses(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    assert brightness(page) < 60
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 200
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert brightness(page) < 60
    page.reload()
    page.wait_for_selector(".row")
    assert brightness(page) < 60


def test_a_probe_that_is_off_is_not_mistaken_for_silence(page: Page, site: Site) -> None:
    site.send()
    page.wait_for_selector(".state-dot.live")
    assert page.locator(".probe.off").inner_text().split() == ["OOM", "off"]
    assert "this kernel has no BTF" in page.locator(".blind").inner_text()
    assert page.locator(".probe.attached").inner_text() == "fork"
    assert page.locator(".slot.ready").first.inner_text().startswith("0")
    assert page.locator(".hosts .slot.booting").inner_text().startswith("1")
    assert page.locator(".agent .bad").inner_text().split() == ["lost", "3"]
    page.click(".probe.off")
    page.locator(".popover:popover-open", has_text="not heard").wait_for()


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_no_width_needs_sideways_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    wide = "[document.documentElement, document.querySelector('.scroller')].map(e => e.scrollWidth - e.clientWidth)"
    assert page.evaluate(wide) == [0, 0]
    open_chain_of(page, "OOM killer")
    panel = page.locator(".panel").bounding_box()
    assert panel is not None and (panel["width"] == width) == (width < 900)
    assert page.evaluate("document.querySelector('.panel-body').scrollWidth <= innerWidth")


def test_every_control_has_a_name(page: Page) -> None:
    open_chain_of(page, "OOM killer")
    nameless = page.evaluate("""[...document.querySelectorAll('button, a[href], input')].filter(e =>
        !(e.ariaLabel || e.innerText.trim() || e.labels?.length || e.closest('label, dialog:not([open])')))
        .map(e => e.outerHTML)""")
    assert nameless == []


def test_older_pages_come_by_scrolling(page: Page, site: Site) -> None:
    past_us = now_us() - 86_400_000_000
    site.send(*(made("worker.ready", f"Old event {n}.", ts_us=past_us + n * 1000) for n in range(300)))
    page.fill("#search", "old event")
    page.locator(".row", has_text="Old event 299.").wait_for()
    page.locator(".row-link").first.focus()
    deadline = time.monotonic() + PATIENCE_S
    while not page.locator(".row", has_text="Old event 0.").count():
        assert time.monotonic() < deadline, "the oldest event does not come by scrolling"
        page.keyboard.press("End")
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
    page.get_by_text("Nothing older that matches is stored").wait_for()


def test_ten_thousand_live_events_leave_the_page_quick(page: Page, site: Site) -> None:
    for batch in range(10):
        site.send(*(made("worker.ready", f"Flood {batch * 1000 + n}.") for n in range(1000)))
    page.locator(".row", has_text="Flood 9999.").wait_for()
    assert page.locator(".row").count() < 400
    started = time.monotonic()
    for _ in range(20):
        page.keyboard.press("j")
    assert page.evaluate("document.activeElement.className") == "row-link"
    assert time.monotonic() - started < PATIENCE_S


def test_a_server_that_comes_back_is_found_again_with_nothing_missed(page: Page, site: Site) -> None:
    page.expected_complaints = "ERR_|Failed to load|502"  # type: ignore[attr-defined]
    site.send(made("worker.ready", "Before the restart."))
    page.locator(".row", has_text="Before the restart").wait_for()
    address = site.base.partition("://")[2]
    site.stop()
    page.wait_for_selector(".live-state.down")
    site.start(address)
    site.send(made("worker.ready", "While nobody listened."))
    page.locator(".row", has_text="While nobody listened").wait_for()
    page.wait_for_selector(".live-state.live")
    assert page.locator(".row", has_text="Before the restart").count() == 1


def brightness(page: Page) -> float:
    """Mean of the page's background colour, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.querySelector('.topbar')).backgroundColor")
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3
