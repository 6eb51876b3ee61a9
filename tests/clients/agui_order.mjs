// Says of each run, a line each of the file, whether AG-UI's client takes what is shown of it and nothing more: `ok`, or what
// is wrong. A run is a list of pairs: an event that was sent, and the events that are shown then.

import { readFileSync } from "node:fs";
import { transformChunks, verifyEvents } from "@ag-ui/client";
import { from, lastValueFrom, toArray } from "rxjs";

console.warn = () => {};

async function error(events) {
  try {
    await lastValueFrom(from(events).pipe(transformChunks(), verifyEvents(), toArray()));
  } catch (error) {
    return error.message;
  }
}

async function verdict(run) {
  const shown = [];
  for (const [sent, then] of run) {
    if (then.length === 0 && !(await error([...shown, sent]))) return `hidden: ${JSON.stringify(sent)} after ${JSON.stringify(shown)}`;
    shown.push(...then);
  }
  const why = await error(shown);
  return why ? `shown: ${why} in ${JSON.stringify(shown)}` : "ok";
}

for (const line of readFileSync(process.argv[2], "utf8").split("\n")) console.log(await verdict(JSON.parse(line)));
