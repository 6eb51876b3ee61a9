// Has the AI SDK's own transport send a message and resume its run: aisdk_chat.mjs API DROP TEXT. After 50 pieces of the
// text it posts to DROP, which cuts the connection. Writes what came of it, as one line of JSON.

import { DefaultChatTransport, readUIMessageStream } from "ai";

const [api, drop, text] = process.argv.slice(2);
const chatId = "a chat/1";
const transport = new DefaultChatTransport({ api });
const messages = [
  { id: "asked", role: "user", parts: [{ type: "text", text: "not this" }] },
  { id: "answered", role: "assistant", parts: [{ type: "step-start" }, { type: "text", text: "nor this" }] },
  { id: "asked-again", role: "user", parts: [{ type: "text", text }, { type: "file", mediaType: "text/plain", url: "data:,a" }] },
];

const first = await transport.sendMessages({ trigger: "submit-message", chatId, messageId: undefined, messages });
let pieces = 0;
let cut;
try {
  for await (const chunk of first) {
    if (chunk.type === "text-delta" && ++pieces === 50) await fetch(drop, { method: "POST" });
  }
} catch (error) {
  cut = String(error);
}

const [chunks, read] = (await transport.reconnectToStream({ chatId })).tee();
const whole = [];
const reading = (async () => {
  for await (const chunk of chunks) whole.push(chunk);
})();
let message;
for await (message of readUIMessageStream({ stream: read })) {
  // The last one counts.
}
await reading;
const ended = await transport.reconnectToStream({ chatId });
process.stdout.write(`${JSON.stringify({ pieces, cut, whole, message, ended })}\n`);
