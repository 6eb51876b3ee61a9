// Has the client of TanStack AI chat with the agent of a hub: tanstack_chat.mjs API DROP THREAD MODE TEXT. DROP cuts the user's
// connections.
//
// - "cut": sends TEXT, and cuts the connection every ten pieces of the answer, twenty times at most.
// - "reload": sends TEXT, goes away after fifty pieces, as a page does that is reloaded, and has other clients load the thread:
//   one that joins the run, is cut twice and reads on, and one that comes when the run is over.
// - "wrong": sends TEXT, and says what becomes of it.
//
// Writes what came of it, as one line of JSON.

import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client";

const [api, drop, threadId, mode, text] = process.argv.slice(2);

// Requests that were sent, and ids of events that were received, by whichever client.
const requests = [];
const ids = [];
// How many responses have begun.
let responses = 0;

async function counted(url, init) {
  requests.push({ method: init.method, query: new URL(url).search, lastEventId: init.headers["Last-Event-ID"] ?? null });
  const response = await fetch(url, init);
  responses += 1;
  const stream = response.body?.pipeThrough(new TextDecoderStream());
  if (!stream || !response.headers.get("content-type").startsWith("text/event-stream")) {
    return new Response(stream?.pipeThrough(new TextEncoderStream()), response);
  }
  let rest = "";
  const reads = new TransformStream({
    transform(piece, out) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      ids.push(...lines.filter((line) => line.startsWith("id: ")).map((line) => line.slice(4)));
      out.enqueue(piece);
    },
  });
  return new Response(stream.pipeThrough(reads).pipeThrough(new TextEncoderStream()), response);
}

// A client, and what it has seen. `cutAt` are the numbers of pieces of the text from which on it cuts, once for each and only
// after a piece of a new response: before that there is nothing to cut.
function client(cutAt, atPiece = () => {}) {
  const cuts = [...cutAt];
  let cutOff = 0;
  const seen = { chunks: [], pieces: 0, dropped: [], error: null };
  const chat = new ChatClient({
    threadId,
    persistence: true,
    connection: fetchServerSentEvents(api, { fetchClient: counted, reconnect: { delayMs: 1 } }),
    onError: (error) => (seen.error = String(error)),
    onChunk(chunk) {
      seen.chunks.push(chunk.type === "TEXT_MESSAGE_CONTENT" ? chunk.delta : { type: chunk.type, runId: chunk.runId });
      if (chunk.type !== "TEXT_MESSAGE_CONTENT") return;
      seen.pieces += 1;
      if (seen.pieces >= cuts[0] && responses > cutOff) {
        cuts.shift();
        cutOff = responses;
        const cut = fetch(drop, { method: "POST" }).then((response) => response.json());
        seen.dropped.push(cut.then((answer) => answer.dropped));
      }
      atPiece(seen.pieces, chat);
    },
  });
  const result = async () => ({ ...seen, dropped: await Promise.all(seen.dropped), messages: chat.getMessages() });
  return { chat, seen, result };
}

// Waits until it holds.
async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const results = {};
if (mode === "reload") {
  const first = client([], (pieces, chat) => pieces === 50 && chat.dispose());
  first.chat.attach();
  first.chat.sendMessage(text);
  await until(() => first.seen.pieces >= 50);
  results.first = await first.result();

  const second = client([80, 120]);
  second.chat.attach();
  await until(() => second.seen.chunks.at(-1)?.type === "RUN_FINISHED" && second.chat.getStatus() === "ready");
  results.second = await second.result();
  second.chat.dispose();

  const third = client([]);
  third.chat.attach();
  await until(() => third.chat.getMessages().length > 0);
  results.third = await third.result();
  third.chat.dispose();
} else {
  const tenths = Array.from({ length: 20 }, (_, index) => 10 * index + 5);
  const only = client(mode === "cut" ? tenths : []);
  only.chat.attach();
  await only.chat.sendMessage(text);
  results.only = await only.result();
  only.chat.dispose();
}
process.stdout.write(`${JSON.stringify({ requests, ids, ...results })}\n`);
