// Reads chunks, one a line, and says of each what the AI SDK's own schema makes of it: "ok" and the chunk as JSON again, or
// "refused" and why.

import { readFileSync } from "node:fs";
import { uiMessageChunkSchema } from "ai";

const { validate } = uiMessageChunkSchema();
const chunks = readFileSync(process.argv[2], "utf8").split("\n").filter((line) => line !== "");
for (const chunk of chunks) {
  const parsed = await validate(JSON.parse(chunk));
  const verdict = parsed.success ? `ok ${JSON.stringify(parsed.value)}` : `refused ${JSON.stringify(parsed.error.message)}`;
  process.stdout.write(`${verdict}\n`);
}
