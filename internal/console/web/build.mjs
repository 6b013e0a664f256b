// Builds ../dist, which is committed: a Go module can embed only what is in it.
import { build } from "esbuild";
import { copyFile, mkdir, rm } from "node:fs/promises";

await rm("../dist", { recursive: true, force: true });
await mkdir("../dist");
await build({
  entryPoints: ["src/main.tsx", "src/style.css"],
  outdir: "../dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "info",
});
await copyFile("src/index.html", "../dist/index.html");
