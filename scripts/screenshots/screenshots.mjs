// Takes the pictures of docs/ from a service that runs with traffic, and lets
// axe look at each page. Usage: node screenshots.mjs BASE_URL OUT_DIR
import { readFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const [base, out] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
await mkdir(out, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});
// One picture of each page is kept, the others are only looked at.
const kept = ["dashboard-basic-1280-light", "dashboard-basic-400-dark", "dashboard-enhanced-1280-light", "dashboard-enhanced-400-dark", "alerts-1280-dark", "alerts-400-light"];
const format = process.env.FORMAT ?? "webp";
const pages = [
  { name: "dashboard-basic", path: "/console/monitoring#page=routing-service&range=5m&refresh=off" },
  { name: "dashboard-enhanced", path: "/console/monitoring#page=routing-service-enhanced&range=5m&refresh=off" },
  { name: "alerts", path: "/console/monitoring#page=alerts&refresh=off" },
  { name: "runbooks", path: "/console/runbooks", only: 1280 },
];
// What a panel says where what it counts did not happen, which is well.
const nothing = ["None fails", "None waited", "Not traced"];
let faults = 0;
const paints = [];
// What was started beside the service is still there, or the pictures show
// nothing.
for (const query of ["active_heads", "sse_connections", "websocket_connections", 'sum(rate(message_queue_messages_total{queue="decisions.request"}[1m]))']) {
  const answer = await (await fetch(`${base}/prometheus/api/v1/query?` + new URLSearchParams({ query }))).json();
  if (!(Number(answer.data?.result?.[0]?.value[1]) > 0)) {
    faults++;
    console.log(`  ${query} is not above 0: ${JSON.stringify(answer.data ?? answer)}`);
  }
}
for (const theme of ["light", "dark"]) {
  for (const width of [1280, 400]) {
    for (const { name, path, only } of pages) {
      if (only && (only !== width || theme === "dark")) continue;
      const page = await browser.newPage();
      const said = [];
      page.on("pageerror", (e) => said.push(String(e)));
      page.on("console", (m) => { if (["error", "warn"].includes(m.type())) said.push(m.text()); });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
      await page.setViewport({ width, height: 900, deviceScaleFactor: 1 });
      await page.goto(base + path, { waitUntil: "networkidle0", timeout: 60000 });
      await new Promise((r) => setTimeout(r, 1500));
      const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
      const look = await page.evaluate(() => {
        const panels = [...document.querySelectorAll(".cell")].map((c) => ({ title: c.querySelector("h3")?.textContent, text: c.innerText, failed: c.querySelector(".failed")?.textContent, box: c.getBoundingClientRect().toJSON(), note: c.querySelector(".panel > .note")?.textContent }));
        const overlaps = [];
        panels.forEach((a, i) => panels.slice(i + 1).forEach((b) => {
          if (a.box.left < b.box.right - 1 && b.box.left < a.box.right - 1 && a.box.top < b.box.bottom - 1 && b.box.top < a.box.bottom - 1) overlaps.push(a.title + " / " + b.title);
        }));
        return {
          panels: panels.length, overlaps, wide: document.documentElement.scrollWidth > innerWidth,
          empty: panels.filter((p) => p.note || /no data|no traffic/i.test(p.text) || p.failed).map((p) => p.title + ": " + (p.failed ?? p.note ?? "no data")),
          timeless: [...document.querySelectorAll(".heat")].filter((h) => h.querySelectorAll(".times li").length < 2).length,
        };
      });
      await page.evaluate(axe);
      const found = await page.evaluate(async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join("; ")}`));
      const picture = `${name}-${width}-${theme}`;
      if (kept.includes(picture) || process.env.KEEP === "all") await page.screenshot({ path: `${out}/${picture}.${format}`, type: format, fullPage: true, ...(format === "webp" ? { quality: 80 } : {}) });
      console.log(`${name} ${width} ${theme}: first paint ${Math.round(paint)} ms, ${look.panels} panels`);
      paints.push(paint);
      for (const fault of [...said, ...found, ...look.overlaps.map((o) => "overlap: " + o), ...look.empty.filter((e) => !nothing.some((n) => e.endsWith(": " + n))), ...(look.timeless ? ["a heat map without times"] : []), ...(look.wide ? ["wider than the window"] : [])]) {
        faults++;
        console.log("  " + fault);
      }
      await page.close();
    }
  }
}
await browser.close();
const median = paints.sort((a, b) => a - b)[Math.floor(paints.length / 2)], limit = 500;
console.log(`first paint: ${Math.round(median)} ms, median of ${paints.length} pages; at most ${limit}`);
if (!(median <= limit)) faults++;
if (faults) { console.error(`${faults} faults`); process.exit(1); }
