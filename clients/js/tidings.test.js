// The client under Node: `node --test`. tests/external/page_client has it in a browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { getEventListeners, once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { build } from "./build.js";
import { Tidings } from "./tidings.js";

const file = (name) => readFileSync(new URL(name, import.meta.url), "utf8");

// A server whose answers are given one by one: each is a function of the response, the last for all that follow.
async function serve(t, ...answers) {
  const requests = [];
  const server = createServer((request, response) => {
    const id = request.headers["last-event-id"];
    requests.push({ id, at: performance.now(), headers: request.headers });
    (answers.length > 1 ? answers.shift() : answers[0])(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}/`, requests };
}

const status = (code, headers = {}) => (response) => response.writeHead(code, headers).end();

// A stream of these bytes. It stays open, unless it shall end.
const stream = (bytes, end = false) => (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(bytes);
  if (end) response.end();
};

// A client that records what its handlers get, and that a test can wait for.
function follow(t, url, options = {}) {
  const told = [];
  let look = () => {};
  const handler = (kind) => (value) => {
    told.push([kind, value]);
    look();
  };
  const client = new Tidings(url, {
    minDelay: 1,
    onEvent: handler("event"),
    onGap: handler("gap"),
    onRefused: handler("refused"),
    onState: handler("state"),
    ...options,
  });
  t.after(() => client.close());
  const all = (kind) => told.filter(([other]) => other === kind).map(([, value]) => value);
  const until = (isSo) => new Promise((resolve) => (look = () => isSo() && resolve())(), look());
  return { client, told, all, until, texts: () => all("event").map(({ data }) => data) };
}

test("the file that pages load is made from the source, and is small", () => {
  assert.equal(file("tidings.js"), build(), "run `npm run build` in clients/js");
  const size = gzipSync(file("tidings.js"), { level: 9 }).length;
  assert.ok(size <= 2500, `${size} bytes gzipped`);
});

test("the package has the client, its types and its source, and depends on nothing", () => {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: new URL(".", import.meta.url),
    stdio: ["ignore", "pipe", "ignore"],
  });
  const files = JSON.parse(packed)[0].files.map(({ path }) => path);
  assert.deepEqual(files.sort(), ["package.json", "src/tidings.js", "tidings.d.ts", "tidings.js"]);
  const { dependencies, devDependencies } = JSON.parse(file("package.json"));
  assert.deepEqual([dependencies, devDependencies], [undefined, undefined]);
});

test("it reads what the standard says, in pieces of any size", async (t) => {
  const source = [
    "\u{feff}: a comment", "retry: 20", "data", "", // An event of an empty line.
    "event: named", "id: 7-1", "data: one", "data:two", "data:  three: 3", "other: x", "", //
    "id: 7-2", "", // No event.
    "event: forgotten", "", "data: 👩‍🚀 ไทย \u{2028}", "", //
    "id: a\0b", "data: an id with a null", "", "id", "data: no id", "", "data: not ended",
  ];
  for (const end of ["\n", "\r\n", "\r"])
    for (const size of [1, 2, 7, 1000]) {
      const bytes = Buffer.from(source.join(end));
      const server = await serve(t, async (response) => {
        response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
        for (let at = 0; at < bytes.length; at += size) {
          response.write(bytes.subarray(at, at + size));
          await new Promise(setImmediate);
        }
        response.end();
      }, stream(""));
      const { all, until, client } = follow(t, server.url);
      await until(() => server.requests.length > 1 && client.state === "open");
      assert.deepEqual(all("event"), [
        { type: "message", data: "", id: "" },
        { type: "named", data: "one\ntwo\n three: 3", id: "7-1" },
        { type: "message", data: "👩‍🚀 ไทย \u{2028}", id: "7-2" },
        { type: "message", data: "an id with a null", id: "7-2" },
        { type: "message", data: "no id", id: "" },
      ], JSON.stringify([end, size]));
      client.close();
    }
});

test("it resumes from the last id, also from one without an event", async (t) => {
  const server = await serve(t, stream("id: 7-1\ndata: a\n\n", true), stream("id: 7-2\n\n", true), stream("data: b\n\n"));
  const { all, until, texts } = follow(t, server.url, { lastEventId: "7-0" });
  await until(() => texts().includes("b"));
  assert.deepEqual(server.requests.map(({ id }) => id), ["7-0", "7-1", "7-2"]);
  assert.deepEqual(all("gap"), []);
});

test("it sends an id of any characters as UTF-8", async (t) => {
  const server = await serve(t, stream("id: ไทย\ndata: a\n\n", true), stream("data: b\n\n"));
  const { until, texts } = follow(t, server.url);
  await until(() => texts().includes("b"));
  assert.equal(Buffer.from(server.requests[1].id, "latin1").toString(), "ไทย");
});

test("it comes back after a refusal, after pauses that grow, and not before the server allows", async (t) => {
  const server = await serve(
    t, status(503), status(500), status(429), status(503, { "retry-after": "1" }), status(200), stream("data: a\n\n"),
  );
  const { all, until, texts } = follow(t, server.url, { minDelay: 50, maxDelay: 150 });
  await until(() => texts().includes("a"));
  const refusals = all("refused");
  // The fifth is a page that is no stream, for example of a network that wants a login.
  assert.deepEqual(refusals.map(({ status }) => status), [503, 500, 429, 503, 200]);
  const shortest = [50, 100, 150, 1000, 150];
  refusals.forEach(({ retryIn }, index) => {
    assert.ok(retryIn >= shortest[index] && retryIn <= shortest[index] * 1.5, `${index}: ${retryIn}`);
    const [before, after] = server.requests.slice(index, index + 2).map(({ at }) => at);
    // Node's timers may be a millisecond early.
    assert.ok(after - before >= retryIn - 2, `${index}: ${after - before}`);
  });
});

test("no two clients wait equally long", async (t) => {
  const server = await serve(t, status(503, { "retry-after": "3" }));
  const clients = Array.from({ length: 8 }, () => follow(t, server.url));
  await Promise.all(clients.map(({ all, until }) => until(() => all("refused").length === 1)));
  assert.equal(new Set(clients.map(({ all }) => all("refused")[0].retryIn)).size, 8);
});

test("it ends at a status that says there is nothing for it", async (t) => {
  for (const code of [204, 400, 401, 403, 404]) {
    const server = await serve(t, status(code));
    const { client, told, until } = follow(t, server.url);
    await until(() => client.state === "closed");
    assert.deepEqual(told.slice(-2), [["refused", { status: code, retryIn: null }], ["state", "closed"]]);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(server.requests.length, 1);
  }
});

test("it says of each gap what to do", async (t) => {
  const reasons = [["lagged", 3], ["evicted", 4], ["backplane", null], ["epoch", null]];
  const bytes = reasons.map(([reason, missed], n) => `id: 7-${n}\nevent: gap\ndata: ${JSON.stringify({ reason, missed })}\n\n`);
  const server = await serve(t, stream(`${bytes.join("")}data: a\n\n`));
  const { all, until, texts, client } = follow(t, server.url);
  await until(() => texts().length === 1);
  const expected = reasons.map(([reason, missed]) => ({ reason, missed, drop: reason === "epoch" }));
  assert.deepEqual(all("gap"), expected);
  assert.equal(client.lastEventId, "7-3");
});

test("it reports a gap where the server has no ids and cannot", async (t) => {
  const server = await serve(t, stream("data: a\n\n", true), stream("data: b\n\n"));
  const { told, until, texts } = follow(t, server.url);
  await until(() => texts().length === 2);
  const gap = { reason: "reconnect", missed: null, drop: false };
  const heard = told.filter(([kind]) => kind !== "state").map(([, value]) => value.data ?? value);
  assert.deepEqual(heard, ["a", gap, "b"]);
});

test("a stream that ends with nothing but a pause is a refusal, and not one to miss events of", async (t) => {
  const server = await serve(t, stream("retry: 5\n\n", true), stream("data: a\n\n", true), stream("data: b\n\n"));
  const { told, until, texts } = follow(t, server.url);
  await until(() => texts().length === 2);
  const heard = told.map(([kind, value]) => (kind === "refused" ? value.status : value.data ?? value.reason ?? value));
  assert.deepEqual(heard, ["open", 200, "connecting", "open", "a", "connecting", "reconnect", "open", "b"]);
});

test("a refusal that comes as an event is reported", async (t) => {
  const refused = `event: refused\ndata: {"reason":"user_full","cap":10}\n\n`;
  const server = await serve(t, stream(`retry: 5\n\n${refused}`, true), stream("data: a\n\n"));
  const { all, until, texts } = follow(t, server.url);
  await until(() => texts().length === 1);
  assert.deepEqual(all("refused"), [{ reason: "user_full", cap: 10 }]);
  assert.deepEqual(all("gap"), []);
});

test("a gap or refusal without a reason is an event of the service, and no event closes the client", async (t) => {
  const bytes = (name) => ["null", "text", "{}", '{"retryIn":null}'].map((data) => `event: ${name}\ndata: ${data}\n\n`);
  const closing = ["gap", "refused"].map((name) => `event: ${name}\ndata: {"reason":"own","retryIn":null}\n\n`);
  const all = [...bytes("gap"), ...bytes("refused"), ...closing].join("");
  const server = await serve(t, stream(`${all}id: 7-1\ndata: a\n\n`));
  const page = follow(t, server.url);
  await page.until(() => page.texts().includes("a") || server.requests.length > 2);
  assert.deepEqual(page.texts(), [...Array(2).fill(["null", "text", "{}", '{"retryIn":null}']).flat(), "a"]);
  assert.deepEqual(page.all("event").map(({ type }) => type), [...Array(4).fill("gap"), ...Array(4).fill("refused"), "message"]);
  assert.deepEqual(page.all("gap"), [{ reason: "own", drop: false }]);
  assert.deepEqual(page.all("refused"), [{ reason: "own" }]);
  assert.deepEqual([page.client.state, server.requests.length], ["open", 1]);
});

test("heartbeats and cursors are no events, but their ids count", async (t) => {
  const bytes = 'event: heartbeat\nid: 7-1\ndata: {"type":"heartbeat"}\n\nid: 7-2\nevent: cursor\ndata: {"id":"7-2"}\n\n';
  const server = await serve(t, stream(bytes, true), stream("event: cursor\ndata: own\n\n"));
  const { all, until } = follow(t, server.url);
  await until(() => all("event").length === 1);
  assert.deepEqual(all("event"), [{ type: "cursor", data: "own", id: "7-2" }]);
  assert.equal(server.requests[1].id, "7-2");
});

test("it reconnects when no byte comes for too long, and not while keep-alives come", async (t) => {
  const streams = [];
  t.mock.method(globalThis, "fetch", async (url, { signal }) => {
    const body = new ReadableStream({
      start(controller) {
        streams.push(controller);
        signal.addEventListener("abort", () => controller.error(signal.reason));
      },
    });
    return new Response(body.pipeThrough(new TextEncoderStream()), { headers: { "content-type": "text/event-stream" } });
  });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const settled = async () => {
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  };
  const { client, texts } = follow(t, "http://localhost", { silence: 1000 });
  await settled();
  streams[0].enqueue("id: 7-1\ndata: a\n\n");
  for (let count = 0; count < 10; count++) {
    await settled();
    t.mock.timers.tick(999);
    streams[0].enqueue(":\n");
  }
  await settled();
  assert.deepEqual([texts(), client.state, streams.length], [["a"], "open", 1]);
  t.mock.timers.tick(1000);
  await settled();
  assert.equal(client.state, "connecting");
  // The pause before a reconnect.
  t.mock.timers.tick(2);
  await settled();
  assert.deepEqual([client.state, streams.length], ["open", 2]);
});

test("it reconnects when a server takes the request and does not answer", async (t) => {
  const server = await serve(t, () => {}, stream("data: a\n\n"));
  const { until, texts } = follow(t, server.url, { silence: 50 });
  await until(() => texts().length === 1);
});

test("headers may be made for each request", async (t) => {
  let count = 0;
  const server = await serve(t, status(503), stream("data: a\n\n"));
  const headers = async () => ({ authorization: `Bearer ${++count}` });
  const { until, texts } = follow(t, server.url, { headers });
  await until(() => texts().length === 1);
  assert.deepEqual(server.requests.map(({ headers }) => headers.authorization), ["Bearer 1", "Bearer 2"]);
  assert.ok(server.requests.every(({ headers }) => headers.accept === "text/event-stream"));
});

test("headers that never come are asked for again", { timeout: 60_000 }, async (t) => {
  let count = 0;
  const server = await serve(t, stream("data: a\n\n"));
  const headers = () => (count++ ? { authorization: "Bearer" } : new Promise(() => {}));
  const { until, texts } = follow(t, server.url, { headers, silence: 50 });
  await until(() => texts().length === 1);
  assert.equal(count, 2);
});

test("a handler that throws loses no event", async (t) => {
  const server = await serve(t, stream("id: 7-1\ndata: a\n\nid: 7-2\ndata: b\n\n"));
  const seen = [];
  const errors = [];
  // What a browser reports, and Node ends at.
  const report = (work) => {
    try {
      work();
    } catch (error) {
      errors.push(error.message);
    }
  };
  const { setTimeout } = globalThis;
  t.mock.method(globalThis, "setTimeout", (work, time) => setTimeout(report, time, work));
  await new Promise((resolve) => {
    const client = new Tidings(server.url, {
      onEvent({ data, id }) {
        seen.push(data);
        assert.equal(client.lastEventId, id);
        if (data === "b") setTimeout(resolve, 10);
        throw new Error(`from ${data}`);
      },
    });
    t.after(() => client.close());
  });
  assert.deepEqual([seen, errors, server.requests.length], [["a", "b"], ["from a", "from b"], 1]);
});

test("close ends the connection, and no handler is called after it", async (t) => {
  let ended;
  const gone = new Promise((resolve) => (ended = resolve));
  const server = await serve(t, (response) => {
    response.on("close", ended);
    stream("data: a\n\ndata: b\n\n")(response);
  });
  const seen = [];
  const client = new Tidings(server.url, {
    onEvent({ data }) {
      seen.push(data);
      client.close();
    },
  });
  await gone;
  assert.deepEqual([seen, client.state, server.requests.length], [["a"], "closed", 1]);
  client.close();
});

// Web Locks, which Node does not have.
function provideLocks(t, request) {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
}

test("a tab that may not use locks asks for them once, and follows the stream alone", async (t) => {
  for (const name of ["SecurityError", "InvalidStateError"]) {
    let count = 0;
    let looped;
    const loop = new Promise((resolve) => (looped = resolve));
    // Rejects, but not for ever: the test shall end.
    provideLocks(t, () => {
      if (++count < 100) return Promise.reject(new DOMException("denied", name));
      looped();
      return new Promise(() => {});
    });
    const server = await serve(t, stream("id: 7-1\ndata: a\n\n", true), stream("id: 7-2\ndata: b\n\n"));
    const { client, texts, until } = follow(t, server.url, { share: true });
    await Promise.race([loop, until(() => texts().length === 2)]);
    assert.deepEqual([count, texts(), client.state], [1, ["a", "b"], "open"]);
    assert.equal(server.requests[1].id, "7-1");
    client.close();
    assert.equal(client.state, "closed");
  }
});

test("a tab that may not have a channel follows the stream alone", async (t) => {
  provideLocks(t, () => assert.fail("there is nobody to share with"));
  t.mock.method(globalThis, "BroadcastChannel", function () {
    throw new DOMException("denied", "SecurityError");
  });
  const server = await serve(t, stream("data: a\n\n"));
  const { texts, until } = follow(t, server.url, { share: true });
  await until(() => texts().length === 1);
});

test("a tab that the stream is taken from asks for it again", { timeout: 60_000 }, async (t) => {
  const asked = [];
  let again;
  const second = new Promise((resolve) => (again = resolve));
  provideLocks(t, (name, options, granted) => {
    asked.push(options);
    if (asked.length > 1) return again(), new Promise(() => {});
    granted();
    return new Promise((_, reject) => setImmediate(() => reject(new DOMException("stolen", "AbortError"))));
  });
  const server = await serve(t, stream("data: a\n\n"));
  follow(t, server.url, { share: true });
  await second;
  assert.deepEqual(asked.map(({ steal }) => steal), [undefined, undefined]);
});

test("a tab that is closed while it takes the lead leaves it again", { timeout: 60_000 }, async (t) => {
  let steal;
  const stealing = new Promise((resolve) => (steal = resolve));
  provideLocks(t, (name, options, granted) => {
    if (options.steal) steal(granted);
    return new Promise(() => {});
  });
  const fetched = t.mock.method(globalThis, "fetch", () => new Promise(() => {}));
  const url = "http://localhost/steal";
  const { client } = follow(t, url, { share: true, lastEventId: "7-1" });
  const leader = new BroadcastChannel(`tidings ${url} undefined`);
  t.after(() => leader.close());
  // This tab has missed events.
  leader.postMessage(["onEvent", { type: "message", data: "c", id: "7-3" }, "7-2", "7-3"]);
  const granted = await stealing;
  client.close();
  const held = granted();
  assert.equal(fetched.mock.callCount(), 0);
  // What it returns is what the lock waits for.
  await held;
});

test("a tab that is closed while it waits for headers leaves the lead", { timeout: 60_000 }, async (t) => {
  let held;
  provideLocks(t, (name, options, granted) => (held = Promise.resolve(granted())));
  const headers = () => new Promise(() => {});
  const { client } = follow(t, "http://localhost/headers", { share: true, headers });
  client.close();
  await held;
});

// A tab whose leading tab is the test: its channel, the next question to it, and the next attempt to take the lead.
function followLeader(t, name, options) {
  let steal;
  const stolen = new Promise((resolve) => (steal = resolve));
  provideLocks(t, (name, { steal: steals }, granted) => {
    if (steals) steal(granted);
    return new Promise(() => {});
  });
  const url = `http://localhost/${name}`;
  const leader = new BroadcastChannel(`tidings ${url} undefined`);
  t.after(() => leader.close());
  const asked = async () => {
    while ((await once(leader, "message"))[0].data[0] !== "ask");
  };
  return { ...follow(t, url, { share: true, ...options }), leader, asked, stolen };
}

test("a tab asks again after a silence, and takes the lead if there is no answer", { timeout: 60_000 }, async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, all, until, leader, asked, stolen } = followLeader(t, "silence", { silence: 10_000 });
  let hasStolen = false;
  stolen.then(() => (hasStolen = true));
  await asked();
  leader.postMessage(["onState", "open", "", ""]);
  await until(() => client.state === "open");
  for (const data of ["one", "two"]) {
    t.mock.timers.tick(10_000);
    await asked();
    leader.postMessage(["onState", "open", client.lastEventId, client.lastEventId]);
    leader.postMessage(["onEvent", { type: "message", data }, client.lastEventId, `7-${data.length}`]);
    await until(() => all("event").at(-1)?.data === data);
  }
  t.mock.timers.tick(10_000);
  await asked();
  t.mock.timers.tick(2_999);
  await new Promise(setImmediate);
  assert.equal(hasStolen, false);
  t.mock.timers.tick(1);
  await stolen;
});

test("a tab with an id takes the lead from one without, and drops nothing", { timeout: 60_000 }, async (t) => {
  const { client, all, until, leader, stolen } = followLeader(t, "no-id", { lastEventId: "7-5" });
  const fetched = new Promise((resolve) =>
    t.mock.method(globalThis, "fetch", (url, request) => (resolve(request), new Promise(() => {}))),
  );
  leader.postMessage(["onState", "connecting", "", ""]);
  const granted = await Promise.race([stolen, until(() => all("gap").length)]);
  assert.deepEqual([all("gap"), client.lastEventId], [[], "7-5"]);
  granted();
  assert.equal((await fetched).headers.get("last-event-id"), "7-5");
});

test("a tab that is closed listens to nothing", async (t) => {
  const document = Object.assign(new EventTarget(), { hidden: false });
  globalThis.document = document;
  t.after(() => delete globalThis.document);
  const count = () => getEventListeners(document, "visibilitychange").length;
  const { client } = followLeader(t, "closed");
  assert.equal(count(), 1);
  client.close();
  assert.equal(count(), 0);
  const alone = follow(t, "http://localhost/alone");
  alone.client.close();
  assert.equal(alone.client.state, "closed");
});
