// Writes what the AI SDK's own schema knows, as one line of JSON: the fields of each type of chunk, and why a run may finish.
// A chunk whose reads are recorded tells the fields: the schema tries one type after the other and reads the type first.

import { uiMessageChunkSchema } from "ai";

const { validate } = uiMessageChunkSchema();

const read = [];
const chunk = new Proxy({}, {
  get: (_, field) => {
    if (typeof field === "string") read.push(field);
  },
});
const { error } = await validate(chunk);
const [{ errors }] = error.issues;
const fields = [];
for (const field of read) {
  if (field === "type") fields.push([]);
  else fields.at(-1).push(field);
}
// `data-*` is no literal.
const types = errors.map((issues) => issues.find(({ path }) => path[0] === "type").values?.[0] ?? "data-*");
if (types.length !== fields.length) throw new Error(`${types.length} types, and fields of ${fields.length}`);

const finish = await validate({ type: "finish", finishReason: 0 });
const [{ errors: ofFinish }] = finish.error.issues;
const { values } = ofFinish.flat().find(({ path }) => path[0] === "finishReason");
process.stdout.write(`${JSON.stringify({ types: Object.fromEntries(types.map((type, at) => [type, fields[at]])), finishReasons: values })}\n`);
