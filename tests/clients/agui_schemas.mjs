// Reads events, one a line, and says of each what the official schemas make of it: "ok" and the event as JSON again, or
// "refused" and why.

import { readFileSync } from "node:fs";
import { EventSchemas } from "@ag-ui/core/schemas";

const events = readFileSync(process.argv[2], "utf8").split("\n").filter((line) => line !== "");
for (const event of events) {
  const parsed = EventSchemas.safeParse(JSON.parse(event));
  if (parsed.success) {
    process.stdout.write(`ok ${JSON.stringify(parsed.data)}\n`);
  } else {
    process.stdout.write(`refused ${JSON.stringify(parsed.error.issues)}\n`);
  }
}
