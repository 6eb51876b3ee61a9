import { Tidings } from "./tidings.js";

const $ = (id) => document.getElementById(id);
// So that a page left open for days does not grow without end.
const MOST_EVENTS = 500;
// What the page follows, and for whom: the user's texts, the run, and panels by their kind.
let texts = null;
let runs = null;
let connected = null;
const panels = new Map();
// An EventSource delivers only events whose names it was given.
const NAMES = {
  agui: `RUN_STARTED RUN_FINISHED RUN_ERROR STEP_STARTED STEP_FINISHED TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT
    TEXT_MESSAGE_END TEXT_MESSAGE_CHUNK TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END TOOL_CALL_CHUNK TOOL_CALL_RESULT
    STATE_SNAPSHOT STATE_DELTA MESSAGES_SNAPSHOT ACTIVITY_SNAPSHOT ACTIVITY_DELTA RAW CUSTOM REASONING_START
    REASONING_MESSAGE_START REASONING_MESSAGE_CONTENT REASONING_MESSAGE_END REASONING_MESSAGE_CHUNK REASONING_END
    REASONING_ENCRYPTED_VALUE SUBAGENT_STARTED SUBAGENT_FINISHED SUBAGENT_ERROR`,
  a2a: "task message statusUpdate artifactUpdate",
  analytics: "sessionStarted sessionEnded pageView engagementUpdate realTimeStats",
};

const path = (user, rest) => `/users/${encodeURIComponent(user)}/${rest}`;

function post(url, body) {
  return fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

function show(state, sentence) {
  $("state").dataset.state = state;
  $("state").textContent = sentence;
  $("disconnect").disabled = connected === null;
}

function lost({ missed }) {
  return missed === null ? "— events may be missing —" : `— ${missed} events were lost —`;
}

function connect(user) {
  disconnect();
  // For the same user the stream goes on where the page was; for another one it begins anew.
  const lastEventId = texts?.user === user ? texts.client.lastEventId : "";
  if (texts?.user !== user) $("events").replaceChildren();
  $("empty").hidden = $("events").childElementCount > 0;
  connected = user;
  show("connecting", "Connecting…");
  let opened = false;
  let refused = null;
  const trying = () => {
    if (refused?.reason === "user_full") return `${user} has ${refused.cap} streams already, trying again…`;
    if (refused) return "The hub has no room, trying again…";
    return opened ? "Connection lost, trying again…" : "The hub does not answer, trying again…";
  };
  const client = new Tidings(path(user, "streams/text"), {
    share: true,
    lastEventId,
    onEvent: ({ type, data }) => type === "text" && add(data),
    onGap: (gap) => add(lost(gap)),
    onRefused: (refusal) => (refused = refusal),
    onState(state) {
      if (state === "open") {
        opened = true;
        refused = null;
        show("open", `Connected as ${user}`);
      } else if (state === "connecting") {
        show("waiting", trying());
      } else if (refused) {
        show("refused", `The hub refused the stream with status ${refused.status}.`);
      }
    },
  });
  texts = { user, client };
  follow(user);
  arrange();
}

function disconnect() {
  connected = null;
  texts?.client.close();
  runs?.close();
  arrange();
  show("idle", "Not connected");
}

// The run that has started last. When a page is loaded again it asks for all that came after the start.
function follow(user) {
  const saved = JSON.parse(sessionStorage.getItem("run"));
  let run = saved?.user === user ? begin(saved.run, true) : null;
  runs = new Tidings(path(user, "streams/context"), {
    share: true,
    lastEventId: run ? saved.id : "",
    onEvent({ type, data, id }) {
      const panel = panels.get("context");
      if (panel) list(panel, type, data);
      if (type !== "agui") return;
      const { event } = JSON.parse(data);
      if (event.type === "RUN_STARTED") {
        run = begin(event.runId, false);
        // Without an id the hub keeps no history, and could not tell what came before a reload.
        if (id) sessionStorage.setItem("run", JSON.stringify({ user, run: event.runId, id }));
      }
      if (run) say(run, event);
    },
    onGap(gap) {
      const panel = panels.get("context");
      if (panel) list(panel, "gap", JSON.stringify(gap));
      // Of what came before an unknown gap nothing is sure, so the run is forgotten.
      if (gap.drop) sessionStorage.removeItem("run");
      if (run && gap.drop && $("run").dataset.state === "running") draw("failed", "The hub no longer has the run.");
      else if (run) run.text += ` ${lost(gap)} `;
    },
    onState(state) {
      const panel = panels.get("context");
      if (panel) panel.state.textContent = state;
    },
  });
}

function begin(id, again) {
  draw("running", again ? "It goes on after the reload." : "Reload the page, or cut its connection: nothing is lost.");
  $("said").textContent = "";
  return { id, text: "", message: null };
}

function say(run, event) {
  if (event.type === "TEXT_MESSAGE_START") run.message = event.messageId;
  if (event.type === "TEXT_MESSAGE_CONTENT" && event.messageId === run.message) run.text += event.delta;
  const mine = event.runId === run.id;
  if (mine && event.type === "RUN_FINISHED") draw("done", "All of it is here, each number once.", run);
  if (mine && event.type === "RUN_ERROR") draw("failed", `The run failed: ${event.message}`);
  $("said").hidden = run.text === "";
  $("said").textContent = run.text;
  $("said").scrollTop = $("said").scrollHeight;
  $("progress").value = run.text.split(" ").filter(Boolean).length;
}

const COUNT = Array.from({ length: 300 }, (_, number) => number + 1).join(" ");

function draw(state, sentence, run) {
  // A run that somebody else has started may say anything.
  const whole = run === undefined || run.text === COUNT;
  $("run").dataset.state = state;
  $("run-state").textContent = whole ? sentence : "It is done.";
  for (const id of ["reload", "cut"]) $(id).hidden = state !== "running";
}

// Ticked streams are open, the others closed. The context stream, which shows the run, is always open.
function arrange() {
  for (const box of $("kinds").querySelectorAll("input")) {
    const open = panels.get(box.value);
    if (box.checked && connected !== null && open?.user === connected) continue;
    open?.client?.close();
    open?.section.remove();
    panels.delete(box.value);
    if (box.checked && connected !== null) panels.set(box.value, panel(box.value, connected));
  }
  document.querySelector("main").classList.toggle("wide", panels.size > 0);
}

function panel(kind, user) {
  const [section, title, state, events] = ["section", "h2", "span", "ol"].map((name) => document.createElement(name));
  section.className = "card panel";
  title.append(kind, state);
  section.append(title, events);
  $("streams").append(section);
  const shown = { user, section, state, events };
  state.textContent = runs.state;
  if (kind !== "context") {
    shown.client = new Tidings(path(user, `streams/${kind}`), {
      events: NAMES[kind].split(/\s+/),
      share: true,
      onEvent: ({ type, data }) => list(shown, type, data),
      onGap: (gap) => list(shown, "gap", JSON.stringify(gap)),
      onState: (now) => (state.textContent = now),
    });
  }
  return shown;
}

function list({ events }, name, text) {
  const [item, type, data] = ["li", "b", "code"].map((name) => document.createElement(name));
  type.textContent = name;
  data.textContent = text;
  item.append(type, data);
  events.append(item);
  while (events.childElementCount > MOST_EVENTS) events.firstElementChild.remove();
  events.scrollTop = events.scrollHeight;
}

function add(text) {
  const [events, scroller] = [$("events"), $("scroller")];
  // A user who has scrolled back stays there.
  const atEnd = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop < 8;
  const item = document.createElement("li");
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString([], { hour12: false });
  const body = document.createElement("pre");
  body.textContent = text;
  item.append(time, body);
  events.append(item);
  while (events.childElementCount > MOST_EVENTS) events.firstElementChild.remove();
  $("empty").hidden = true;
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

async function send(user, text) {
  const response = await post(path(user, "events/text"), { text });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()).reached;
}

// Lets the agent repeat this. The streams show what it does.
async function ask(user, content) {
  const id = () => Math.random().toString(36).slice(2);
  const messages = [{ id: id(), role: "user", content }];
  const input = { threadId: "page", runId: id(), messages, tools: [], context: [] };
  const response = await post(`/agui/${encodeURIComponent(user)}?agent=echo`, input);
  if (!response.ok) throw new Error(await response.text());
  return response;
}

$("start").addEventListener("click", async () => {
  try {
    // The answer is the run once more, for a client of AG-UI.
    await (await ask(connected ?? $("user").value, COUNT)).body.cancel();
  } catch (error) {
    draw("failed", `The agent could not be reached. ${error.message}`);
  }
});

$("reload").addEventListener("click", () => location.reload());
$("cut").addEventListener("click", () => post(path(connected, "drop")));

$("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("user").value;
  history.replaceState(null, "", `?user=${encodeURIComponent(user)}`);
  $("to").value ||= user;
  connect(user);
  $("text").focus();
});

$("disconnect").addEventListener("click", () => {
  disconnect();
  $("user").focus();
});

$("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [to, text] = [$("to").value, $("text").value];
  $("text").value = "";
  try {
    const reached = await send(to, text);
    $("sent").className = "";
    $("sent").textContent = `Sent to ${to}: ${reached} ${reached === 1 ? "stream" : "streams"} reached.`;
  } catch (error) {
    // Nothing is lost: what was typed comes back, unless something else stands there already.
    $("text").value ||= text;
    $("sent").className = "failed";
    $("sent").textContent = `Not sent. ${error.message}`;
  }
});

$("kinds").addEventListener("change", arrange);

$("ask").addEventListener("click", async () => {
  if (!$("send").reportValidity()) return;
  const [to, text] = [$("to").value, $("text").value];
  $("sent").className = "";
  $("sent").textContent = `The agent works for ${to}.`;
  try {
    const run = await (await ask(to, text)).text();
    $("sent").textContent = `The agent is done: ${run.match(/^data:/gm)?.length ?? 0} events.`;
  } catch (error) {
    $("sent").className = "failed";
    $("sent").textContent = `The agent could not be reached. ${error.message}`;
  }
});

// What stands there already is replaced by what is typed.
$("text").addEventListener("focus", () => $("text").select());

$("text").addEventListener("keydown", (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});

const user = new URLSearchParams(location.search).get("user") || $("user").value;
$("user").value = $("to").value = user;
connect(user);
