// `node build.js` makes tidings.js, which is what pages load, from src/tidings.js: without comments and indentation.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

export function build() {
  const source = readFileSync(new URL("src/tidings.js", import.meta.url), "utf8");
  const lines = source.split("\n").map((line) => line.trim());
  const code = lines.filter((line) => line && !line.startsWith("//"));
  return `// src/tidings.js, MIT OR Apache-2.0\n${code.join("\n")}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  writeFileSync(new URL("tidings.js", import.meta.url), build());
}
