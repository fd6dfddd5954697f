/**
 * Takes the pictures of the README: the newest OOM kill's chain open, light and dark.
 *
 *   node scripts/screenshot.mjs --url http://127.0.0.1:8765 --token rfx_op_… --out-dir ../../docs/images
 *
 * `--chromium` names the browser (default /usr/bin/chromium). Exits 1 with a sentence when something is missing.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { paletted } from "./palette.mjs";

const { values: options } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:8765" },
    token: { type: "string", default: process.env.REFLEX_TOKEN ?? "" },
    "out-dir": { type: "string", default: "../../docs/images" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    kind: { type: "string", default: "worker.oom_killed" },
  },
});

const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

async function main() {
  if (!options.token) throw new Error("--token (or REFLEX_TOKEN) is needed: the operator token");
  const url = options.url.replace(/\/$/, "");
  const eventId = await newest(url, options.kind);
  const profile = await mkdtemp(join(tmpdir(), "reflex-screenshot-"));
  await mkdir(options["out-dir"], { recursive: true });
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: options.chromium,
    headless: true,
    args: ARGS,
    viewport: { width: 1440, height: 900 },
  });
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    await page.goto(`${url}/#token=${encodeURIComponent(options.token)}`);
    await page.waitForSelector(".row");
    await page.evaluate((id) => {
      location.hash = `#/event/${id}`;
    }, eventId);
    await page.waitForSelector(".chain-node.asked");
    await page.evaluate(showHostsToo);
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      await page.waitForTimeout(300);
      const path = join(options["out-dir"], `timeline-${scheme}.png`);
      await writeFile(path, paletted(await page.screenshot()));
      console.log(path);
    }
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}

/** In the page: scrolls to the hosts where the opened event stays in view. */
function showHostsToo() {
  document.activeElement?.blur();
  const scroller = document.getElementById("scroller");
  const row = scroller?.querySelector(".row.open");
  if (!scroller || !row) return;
  const kept = scroller.scrollTop;
  scroller.scrollTop = 0;
  if (row.getBoundingClientRect().bottom > innerHeight) scroller.scrollTop = kept;
}

/** The id of the newest event of a kind. */
async function newest(url, kind) {
  const answer = await fetch(`${url}/v1/timeline?limit=1&kind=${encodeURIComponent(kind)}`, {
    headers: { Authorization: `Bearer ${options.token}` },
  });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status} to a question for the newest ${kind}`);
  const { events } = await answer.json();
  if (events.length === 0) throw new Error(`there is no ${kind} on the timeline yet; run ./reflex demo oom first`);
  return events[0].id;
}

main().catch((error) => {
  console.error(`screenshot: ${error.message}`);
  process.exitCode = 1;
});
