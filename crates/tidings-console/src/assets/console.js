// The page is a client of its service's own streams. All that comes from there is put in as text. What grows is bounded:
// points of a graph, events of a watched stream, and rows, which the service caps.
"use strict";

const POINTS = 120;
const EVENTS = 200;
const $ = (id) => document.getElementById(id);
const format = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const SVG = "http://www.w3.org/2000/svg";

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Writes only what has changed, so that a quiet service is a quiet page.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// ---- Figures -------------------------------------------------------------------------------------------------------

const level = (read) => (now) => read(now.stats);
const rate = (read) => (now, before) =>
  before && now.at > before.at ? Math.max(0, (read(now.stats) - read(before.stats)) * 1000 / (now.at - before.at)) : null;

const FIGURES = [
  ["Connections", level((s) => s.connections)],
  ["Users", level((s) => s.users)],
  ["Broadcasts / s", rate((s) => s.broadcasts)],
  ["Deliveries / s", rate((s) => s.deliveries)],
  ["Lost by lag / s", rate((s) => s.lagged)],
  ["Refused, in all", level((s) => s.refused)],
  ["Ended behind, in all", level((s) => s.ended.behind)],
];
const BACKPLANE = [
  ["Queued", level((s) => s.backplane?.queued ?? null)],
  ["Lag, ms", level((s) => s.backplane?.lag_ms ?? null)],
];

function card(list, [label, read]) {
  const item = element("li");
  const value = element("span", "value", "–");
  const graph = document.createElementNS(SVG, "svg");
  graph.setAttribute("viewBox", "0 0 119 32");
  graph.setAttribute("preserveAspectRatio", "none");
  graph.setAttribute("role", "img");
  const path = document.createElementNS(SVG, "path");
  graph.append(path);
  item.append(element("span", "label", label), value, graph);
  list.append(item);
  return { label, read, value, graph, path };
}

const cards = [
  ...FIGURES.map((figure) => card($("figures"), figure)),
  ...BACKPLANE.map((figure) => card($("backplane-figures"), figure)),
];

// By the broadcaster's name: what came last, and the points of each card.
const known = new Map();
let interval = 1000;

function take(snapshot) {
  interval = snapshot.interval_ms;
  $("list").classList.toggle("read-only", !snapshot.acts);
  const names = snapshot.broadcasters.map((one) => one.name);
  for (const name of known.keys()) if (!names.includes(name)) known.delete(name);
  for (const { name, sends, stats } of snapshot.broadcasters) {
    const one = known.get(name) ?? { points: cards.map(() => []) };
    const now = { at: snapshot.at_ms, stats };
    // The feeding task of before is not this one, and its clock began elsewhere.
    const before = one.last && one.last.at < now.at ? one.last : null;
    cards.forEach((card, at) => {
      const points = one.points[at];
      points.push(card.read(now, before));
      if (points.length > POINTS) points.shift();
    });
    one.last = now;
    one.sends = sends;
    known.set(name, one);
  }
  offer(names);
}

function offer(names) {
  const select = $("broadcaster");
  const offered = [...select.options].map((option) => option.value);
  if (JSON.stringify(offered) === JSON.stringify(names)) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
  renew();
}

function chosen() {
  return $("broadcaster").value;
}

function draw() {
  const one = known.get(chosen());
  if (!one) return;
  const backplane = one.last.stats.backplane;
  $("backplane").hidden = !backplane;
  if (backplane) {
    setText($("backplane-state"), backplane.connected ? "connected" : "not connected");
    $("backplane-state").classList.toggle("bad", !backplane.connected);
  }
  cards.forEach((card, at) => drawCard(card, one.points[at]));
}

function drawCard({ label, value, graph, path }, points) {
  const last = points.at(-1);
  setText(value, last === null || last === undefined ? "–" : format.format(last));
  const numbers = points.filter((point) => point !== null);
  const highest = numbers.length ? Math.max(...numbers) : 0;
  const lowest = numbers.length ? Math.min(...numbers) : 0;
  // From zero, so that a small change is not a mountain; the newest point stands at the right edge.
  let line = "";
  points.forEach((point, at) => {
    if (point === null) return;
    const x = POINTS - points.length + at;
    const y = 31 - (highest > 0 ? point / highest : 0) * 30;
    line += `${line ? "L" : "M"}${x} ${y.toFixed(1)}`;
  });
  path.setAttribute("d", line);
  const seconds = Math.max(1, Math.round(points.length * interval / 1000));
  graph.setAttribute("aria-label",
    `${label}, graph of the last ${seconds} seconds: lowest ${format.format(lowest)}, highest ${format.format(highest)}`);
}

// ---- The live stream -----------------------------------------------------------------------------------------------

let live = null;
let wait = 2000;
let retry = 0;
let watchdog = 0;
let updates = 0;

function setState(state, text) {
  $("state").dataset.state = state;
  setText($("state"), text);
}

function connect() {
  clearTimeout(retry);
  live?.close();
  live = new EventSource("live");
  live.addEventListener("snapshot", (event) => {
    updates += 1;
    wait = 2000;
    setState("live", "Live");
    watchOver();
    take(JSON.parse(event.data));
    draw();
    if (updates % 3 === 1) renew();
    document.documentElement.dataset.updates = updates;
  });
  // Also where the browser would try again by itself: it gives up for good on some answers, and is not told of a network
  // that has gone silent.
  live.addEventListener("error", lost);
  watchOver();
}

function lost() {
  clearTimeout(watchdog);
  clearTimeout(retry);
  live?.close();
  setState("lost", "Connection lost. Trying again…");
  retry = setTimeout(connect, wait);
  wait = Math.min(wait * 2, 30000);
}

// Figures that do not come are as good as a lost connection.
function watchOver() {
  clearTimeout(watchdog);
  watchdog = setTimeout(lost, Math.max(10000, interval * 4));
}

// ---- Users ---------------------------------------------------------------------------------------------------------

const rows = new Map();
let asking = false;
let again = false;

// Asks for the list, one request at a time. What is asked for meanwhile is asked for once, afterwards.
async function renew() {
  if (!chosen()) return;
  if (asking) { again = true; return; }
  asking = true;
  const broadcaster = chosen();
  const search = $("search").value.trim();
  try {
    const listing = await ask(`users?${new URLSearchParams({ broadcaster, search })}`);
    if (broadcaster === chosen()) showListing(listing, search);
  } catch (error) {
    setText($("summary"), `The list could not be loaded: ${error.message}`);
  } finally {
    asking = false;
    if (again) { again = false; renew(); }
  }
}

function showListing({ total, found, capped, users }, search) {
  const shown = users.length;
  const connections = users.reduce((sum, user) => sum + user.connections.length, 0);
  const n = format.format;
  let text;
  if (total === 0) text = "Nobody is connected.";
  else if (found === 0) text = `None of ${count(total, "user")} has “${search}” in the id.`;
  else if (capped) text = `Showing the first ${count(shown, "user")} of ${n(found)}${search ? " found" : ""}, with ${count(connections, "connection")}: the list is capped. Search to see others.`;
  else text = `${count(found, "user")}${search ? ` of ${n(total)} found` : ""}, ${count(connections, "connection")}.`;
  setText($("summary"), text);

  const table = $("list");
  table.hidden = shown === 0;
  const left = new Set(rows.keys());
  let before = table.tHead;
  for (const user of users) {
    left.delete(user.user);
    const group = rows.get(user.user) ?? makeGroup(user.user);
    rows.set(user.user, group);
    fill(group, user);
    if (before.nextElementSibling !== group.body) before.after(group.body);
    before = group.body;
  }
  for (const user of left) {
    leave(rows.get(user).body);
    rows.delete(user);
  }
}

// A row that goes takes nobody's place in the page with it.
function leave(node) {
  if (node.contains(document.activeElement)) $("users-title").focus();
  node.remove();
}

function count(number, what) {
  return `${format.format(number)} ${what}${number === 1 ? "" : "s"}`;
}

function makeGroup(user) {
  const body = element("tbody");
  const head = element("th");
  head.colSpan = 5;
  head.scope = "rowgroup";
  const line = element("div", "user");
  const total = element("span", "count");
  const send = button("Send…", `Send a test event to ${user}`, () => openSend(user), "acts");
  line.append(
    element("bdi", "", user),
    total,
    button("Watch", `Watch the stream of ${user}`, () => watch(user)),
    send,
    button("Disconnect all", `Disconnect all of ${user}`, () => disconnect(user, null), "acts"),
  );
  head.append(line);
  const row = element("tr");
  row.append(head);
  body.append(row);
  return { body, total, send, connections: new Map() };
}

function button(text, label, act, className = "") {
  const made = element("button", className, text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function fill(group, { user, total, connections }) {
  const hidden = total - connections.length;
  setText(group.total, count(total, "connection") + (hidden > 0 ? `, ${format.format(hidden)} not shown` : ""));
  group.send.hidden = !known.get(chosen())?.sends;
  const left = new Set(group.connections.keys());
  for (const { connection, age_ms, lagged, behind } of connections) {
    left.delete(connection);
    let row = group.connections.get(connection);
    if (!row) {
      row = makeRow(user, connection);
      group.connections.set(connection, row);
      group.body.append(row.row);
    }
    setText(row.age, duration(age_ms));
    for (const [cell, number] of [[row.lagged, lagged], [row.behind, behind]]) {
      setText(cell, format.format(number));
      cell.classList.toggle("some", number > 0);
    }
  }
  for (const connection of left) {
    leave(group.connections.get(connection).row);
    group.connections.delete(connection);
  }
}

function makeRow(user, connection) {
  const row = element("tr");
  const [age, lagged, behind] = [element("td", "number"), element("td", "number"), element("td", "number")];
  const act = element("td", "act");
  act.append(button("End", `Disconnect connection ${connection} of ${user}`, () => disconnect(user, connection), "acts"));
  row.append(element("td", "id", connection), age, lagged, behind, act);
  return { row, age, lagged, behind };
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

// ---- Actions -------------------------------------------------------------------------------------------------------

async function ask(url, body) {
  const options = body && {
    method: "POST",
    headers: { "content-type": "application/json", "x-tidings-console": "1" },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(url, options || undefined);
  } catch {
    throw new Error("the service cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `the service answered ${response.status}.`);
  return answer;
}

let quiet = 0;

function tell(text) {
  $("result").textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { $("result").textContent = ""; }, 10000);
}

// What the open dialog does when the operator agrees.
let agreed = null;

function disconnect(user, connection) {
  const broadcaster = chosen();
  $("confirm-text").textContent = connection === null
    ? `All connections of ${user} at “${broadcaster}” end immediately. The clients may reconnect by themselves.`
    : `Connection ${connection} of ${user} at “${broadcaster}” ends immediately. The client may reconnect by itself.`;
  agreed = async () => {
    try {
      const body = connection === null ? { broadcaster, user } : { broadcaster, user, connection };
      const { ended } = await ask("disconnect", body);
      tell(`${count(ended, "connection")} of ${user} disconnected.`);
    } catch (error) {
      tell(`Not disconnected: ${error.message}`);
    }
    renew();
  };
  $("confirm").showModal();
}

$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-yes").addEventListener("click", () => {
  $("confirm").close();
  agreed?.();
  agreed = null;
});

let receiver = null;

function openSend(user) {
  receiver = { user, broadcaster: chosen() };
  $("send-user").textContent = user;
  $("send").showModal();
  $("send-text").focus();
}

$("send-no").addEventListener("click", () => $("send").close());
$("send-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { user, broadcaster } = receiver;
  const text = $("send-text").value;
  $("send").close();
  try {
    const { reached } = await ask("send", { broadcaster, user, text });
    tell(`Sent to ${user}: ${count(reached, "stream")} reached.`);
    $("send-text").value = "";
  } catch (error) {
    tell(`Test event: ${error.message}`);
  }
});

// ---- A watched stream ----------------------------------------------------------------------------------------------

let watched = null;
let waiting = [];
let drawing = 0;

function watch(user) {
  unwatch();
  $("watched").textContent = user;
  $("watch").hidden = false;
  setText($("watch-state"), "Connecting…");
  const broadcaster = chosen();
  watched = new EventSource(`watch?${new URLSearchParams({ broadcaster, user })}`);
  const source = watched;
  let lost = false;
  source.addEventListener("watching", () => {
    setText($("watch-state"), `Open, at “${broadcaster}”`);
    if (lost) log(makeGap("The stream is back. Events may be missing in between."));
    lost = false;
    renew();
  });
  source.addEventListener("seen", (event) => log(makeEvent(JSON.parse(event.data))));
  source.addEventListener("gap", (event) => {
    const { reason, missed } = JSON.parse(event.data);
    const what = missed === null ? "Events may be missing" : `${count(missed, "event")} missing`;
    log(makeGap(`Gap: ${what} (${reason}).`));
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      setText($("watch-state"), "Refused: the console watches no more streams, or the service is full.");
      return;
    }
    lost = true;
    setText($("watch-state"), "Connection lost. Trying again…");
  });
  $("watch-title").focus();
}

function unwatch() {
  watched?.close();
  watched = null;
  waiting = [];
  $("watch").hidden = true;
  $("events").replaceChildren();
}

$("unwatch").addEventListener("click", () => {
  unwatch();
  $("users-title").focus();
  renew();
});

const clock = () => new Date().toLocaleTimeString("en-GB");

function makeEvent({ event, id, data, bytes, cut }) {
  return () => {
    const item = element("li");
    const head = [clock(), event, id && `id ${id}`, cut && `the beginning of ${format.format(bytes)} bytes`];
    item.append(element("div", "head", head.filter(Boolean).join(" · ")), element("pre", "", data));
    return item;
  };
}

function makeGap(text) {
  return () => element("li", "gap", `${clock()} · ${text}`);
}

// Drawn once per picture, however fast events come. Those that would be pushed out at once are not made.
function log(make) {
  waiting.push(make);
  if (waiting.length > EVENTS) waiting.shift();
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    const list = $("events");
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...waiting.map((make) => make()));
    waiting = [];
    while (list.childElementCount > EVENTS) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  });
}

// ---- Begin ---------------------------------------------------------------------------------------------------------

$("broadcaster").addEventListener("change", () => {
  unwatch();
  for (const { body } of rows.values()) body.remove();
  rows.clear();
  draw();
  renew();
});
let typed = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(renew, 150);
});
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  renew();
});
connect();
