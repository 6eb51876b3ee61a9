// `node build.js` makes tidings.js, which is what pages load, from src/tidings.js: without comments and spaces.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

export function build() {
  const source = readFileSync(new URL("src/tidings.js", import.meta.url), "utf8");
  const lines = source.split("\n").filter((line) => !line.trim().startsWith("//"));
  // Strings stay as they are. A regular expression of the source must have no space next to a punctuation mark.
  const code = lines.join("\n").trim().replace(/("[^"]*"|'[^']*'|`[^`]*`)|\s*([=,;:?(){}|&<>*]+)\s*/g, "$1$2");
  return `// src/tidings.js, MIT OR Apache-2.0\n${code}\n`;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  writeFileSync(new URL("tidings.js", import.meta.url), build());
}
