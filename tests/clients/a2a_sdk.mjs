// Reads events, one a line, and writes each as the official client in JavaScript understands it.

import { readFileSync } from "node:fs";
import { StreamResponse } from "@a2a-js/sdk";

const events = readFileSync(process.argv[2], "utf8").split("\n").filter((line) => line !== "");
for (const event of events) {
  const understood = StreamResponse.fromJSON(JSON.parse(event));
  process.stdout.write(`ok ${JSON.stringify(StreamResponse.toJSON(understood))}\n`);
}
