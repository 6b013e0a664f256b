// Runs test/ on the source as the page gets it. Usage: node test.mjs
import { build } from "esbuild";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";

const out = await mkdtemp(join(tmpdir(), "console-"));
await build({ entryPoints: ["test/console.ts"], outfile: join(out, "console.test.mjs"), bundle: true, format: "esm", platform: "node", logLevel: "warning" });
const { status } = spawnSync(process.execPath, ["--test", "--test-reporter=dot", join(out, "console.test.mjs")], { stdio: "inherit", env: { ...process.env, TZ: "UTC" } });
await rm(out, { recursive: true });
process.exit(status ?? 1);
