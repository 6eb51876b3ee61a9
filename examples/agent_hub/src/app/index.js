"use strict";
const $ = (id) => document.getElementById(id);
// So that a page left open for days does not grow without end.
const MOST_EVENTS = 500;
let source = null;
// Whose streams are open, and those beside the text, by their kind.
let connected = null;
const panels = new Map();
// An EventSource has to be told which events it shall hear of.
const NAMES = {
  agui: `RUN_STARTED RUN_FINISHED RUN_ERROR STEP_STARTED STEP_FINISHED TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT
    TEXT_MESSAGE_END TEXT_MESSAGE_CHUNK TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END TOOL_CALL_CHUNK TOOL_CALL_RESULT
    STATE_SNAPSHOT STATE_DELTA MESSAGES_SNAPSHOT ACTIVITY_SNAPSHOT ACTIVITY_DELTA RAW CUSTOM REASONING_START
    REASONING_MESSAGE_START REASONING_MESSAGE_CONTENT REASONING_MESSAGE_END REASONING_MESSAGE_CHUNK REASONING_END
    REASONING_ENCRYPTED_VALUE SUBAGENT_STARTED SUBAGENT_FINISHED SUBAGENT_ERROR`,
  a2a: "task message statusUpdate artifactUpdate",
  context: "agui a2a system gap",
  analytics: "sessionStarted sessionEnded pageView engagementUpdate realTimeStats heartbeat gap",
};

const path = (user, rest) => `/users/${encodeURIComponent(user)}/${rest}`;

function show(state, sentence) {
  $("state").dataset.state = state;
  $("state").textContent = sentence;
  $("disconnect").disabled = source === null;
}

function connect(user) {
  connected = user;
  arrange();
  source?.close();
  $("events").replaceChildren();
  $("empty").hidden = false;
  source = new EventSource(path(user, "streams/text"));
  show("connecting", "Connecting…");
  source.addEventListener("open", () => show("open", `Connected as ${user}`));
  source.addEventListener("error", () => {
    // The browser tries again by itself, unless the server has answered with anything but a stream.
    if (source.readyState === EventSource.CONNECTING) {
      show("waiting", "Connection lost, trying again…");
    } else {
      source = null;
      show("refused", "The server refused. It may be full: try again later.");
    }
  });
  source.addEventListener("text", (event) => add(event.data));
  source.addEventListener("gap", (event) => {
    const { missed } = JSON.parse(event.data);
    add(missed === null ? "— events may be missing —" : `— ${missed} events were lost —`);
  });
}

function disconnect() {
  connected = null;
  arrange();
  source?.close();
  source = null;
  show("idle", "Not connected");
}

// Opens the streams that are ticked, and closes the others.
function arrange() {
  for (const box of $("kinds").querySelectorAll("input")) {
    const open = panels.get(box.value);
    if (box.checked && connected !== null && open?.user === connected) continue;
    open?.source.close();
    open?.section.remove();
    panels.delete(box.value);
    if (box.checked && connected !== null) panels.set(box.value, panel(box.value, connected));
  }
  document.querySelector("main").classList.toggle("wide", panels.size > 0);
}

function panel(kind, user) {
  const [section, title, state, list] = ["section", "h2", "span", "ol"].map((name) => document.createElement(name));
  section.className = "card panel";
  title.append(kind, state);
  section.append(title, list);
  $("streams").append(section);
  const source = new EventSource(path(user, `streams/${kind}`));
  source.addEventListener("open", () => (state.textContent = "open"));
  source.addEventListener("error", () => (state.textContent = source.readyState === 2 ? "refused" : "lost, trying again"));
  for (const name of NAMES[kind].split(/\s+/)) {
    source.addEventListener(name, (event) => {
      const [item, type, data] = ["li", "b", "code"].map((name) => document.createElement(name));
      type.textContent = name;
      data.textContent = event.data;
      item.append(type, data);
      list.append(item);
      while (list.childElementCount > MOST_EVENTS) list.firstElementChild.remove();
      list.scrollTop = list.scrollHeight;
    });
  }
  return { user, source, section };
}

function add(text) {
  const [events, scroller] = [$("events"), $("scroller")];
  // Whoever has scrolled back to read is left there.
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
  const response = await fetch(path(user, "events/text"), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ text }),
  });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()).reached;
}

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

// What the agent does is seen in the streams. The answer is the run once more, for a client of AG-UI.
$("ask").addEventListener("click", async () => {
  if (!$("send").reportValidity()) return;
  const [to, text] = [$("to").value, $("text").value];
  const id = () => Math.random().toString(36).slice(2);
  const messages = [{ id: id(), role: "user", content: text }];
  $("sent").className = "";
  $("sent").textContent = `The agent works for ${to}.`;
  try {
    const response = await fetch(`/agui/${encodeURIComponent(to)}?agent=echo`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ threadId: "page", runId: id(), messages, tools: [], context: [] }),
    });
    const run = await response.text();
    if (!response.ok) throw new Error(run);
    $("sent").textContent = `The agent is done: ${run.match(/^data:/gm)?.length ?? 0} events.`;
  } catch (error) {
    $("sent").className = "failed";
    $("sent").textContent = `The agent was not reached. ${error.message}`;
  }
});

$("text").addEventListener("keydown", (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});

const user = new URLSearchParams(location.search).get("user");
if (user) {
  $("user").value = $("to").value = user;
  connect(user);
}
