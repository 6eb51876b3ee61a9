// src/tidings.js, MIT OR Apache-2.0
const distance = (a, b) => {
const number = /\d+~?$/;
return a.replace(number, "") === b.replace(number, "") ? parseInt(a.match(number)) - parseInt(b.match(number)) : NaN;
};
export class Tidings {
state = "connecting";
constructor(url, options = {}) {
const { events, headers, credentials, minDelay = 1000, maxDelay = 30000, silence = 45000 } = options;
const { document, location, navigator } = globalThis;
const locks = options.share && navigator?.locks;
url = new URL(url, location?.href);
this.lastEventId = options.lastEventId ?? "";
let retry = minDelay, opened, refused, heard, watchdog;
let term = 0, stop;
let channel, leads, queued, patience;
const resign = () => {
leads = false;
term++;
stop?.();
};
this.close = () => {
hear("onState", "closed");
resign();
leads = true;
queued?.abort();
channel?.close();
};
const hear = (kind, value, id = this.lastEventId) => {
if (this.state === "closed") return;
this.lastEventId = id;
if (value === this.state) return;
if (kind === "onState") {
if (this.state === "open") opened ||= !refused;
refused = false;
this.state = value;
}
if (kind === "onRefused") refused = true;
if (kind === "onGap") value.drop = value.reason === "epoch";
try {
options[kind]?.(value);
} catch (error) {
setTimeout(() => { throw error; });
}
if (value.retryIn === null) this.close();
};
const tell = (kind, value, id = this.lastEventId) => {
if (this.state === "closed") return;
channel?.postMessage([kind, value, this.lastEventId, id]);
hear(kind, value, id);
};
const open = () => {
if ((opened || this.state === "open") && !this.lastEventId) tell("onGap", { reason: "reconnect", missed: null });
tell("onState", "open");
};
const emit = (type, data, id) => {
const beat = data === '{"type":"heartbeat"}';
if (type === "gap" || type === "refused") try {
const { retryIn, ...value } = JSON.parse(data);
if (value.reason) return tell(type === "gap" ? "onGap" : "onRefused", value, id);
} catch {}
if (type && !beat && data !== `{"id":"${id}"}` && (!events || type === "message" || events.includes(type)))
tell("onEvent", { type, data, id }, id);
else if (id !== this.lastEventId) tell("", id, id);
return beat;
};
const watch = () => {
clearTimeout(watchdog);
if (silence) watchdog = setTimeout(() => stop(), silence);
};
const readNative = () => new Promise((resolve) => {
const address = new URL(url);
address.searchParams.set("lastEventId", this.lastEventId);
const source = new EventSource(address, { withCredentials: credentials === "include" });
stop = () => resolve(source.close());
source.onopen = open;
source.onerror = () => source.readyState > 1 ? stop() : tell("onState", "connecting");
let beats;
for (const name of new Set(["message", "gap", "refused", "heartbeat", "cursor", ...events]))
source.addEventListener(name, ({ type, data, lastEventId }) => {
heard = true;
beats = emit(type, data, lastEventId || this.lastEventId) || beats;
if (beats) watch();
});
});
const read = async () => {
const abort = new AbortController();
stop = () => abort.abort();
watch();
const request = new Headers(typeof headers === "function" ? await headers() : headers);
request.set("accept", "text/event-stream");
if (this.lastEventId)
request.set("last-event-id", String.fromCharCode(...new TextEncoder().encode(this.lastEventId)));
const answer = await fetch(url, { headers: request, credentials, cache: "no-store", signal: abort.signal });
if (answer.status !== 200 || !/^text\/event-stream/.test(answer.headers.get("content-type"))) {
stop();
return answer;
}
open();
const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
let rest = "", type = "", data = "", id = this.lastEventId, content;
for (;;) {
const { value, done } = await reader.read();
if (done) return content ? null : answer;
heard = true;
watch();
const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
rest = lines.pop();
for (const line of lines) {
const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
content ||= line && field !== "retry";
if (!line) {
emit(data && (type || "message"), data.slice(0, -1), id);
type = data = "";
} else if (field === "data") data += text + "\n";
else if (field === "event") type = text;
else if (field === "id" && !text.includes("\0")) id = text;
else if (field === "retry" && /^\d+$/.test(text)) retry = Math.max(minDelay, text);
}
}
};
const run = async () => {
const own = ++term;
leads = true;
const canBeNative = events && !headers && globalThis.EventSource;
let native = canBeNative;
for (let failures = 0; ; failures++) {
heard = false;
const refusal = await (native ? readNative() : read()).catch(() => {});
clearTimeout(watchdog);
if (own !== term) return;
native = canBeNative && !native && heard;
if (heard) failures = 0;
const backoff = Math.min(maxDelay, retry * 2 ** failures);
const pause = Math.max(retry, backoff, refusal?.headers.get("retry-after") * 1000 || 0);
const retryIn = Math.min(pause * (1 + Math.random() / 2), 2e9);
if (refusal) {
const { status } = refusal;
tell("onRefused", { status, retryIn: /^204|^4(?!08|25|29)/.test(status) ? null : retryIn });
}
tell("onState", "connecting");
if (own !== term) return;
await new Promise((resolve) => {
const timer = setTimeout(resolve, retryIn);
stop = () => resolve(clearTimeout(timer));
});
if (own !== term) return;
}
};
const name = `tidings ${url} ${events}`;
try {
channel = locks && new BroadcastChannel(name);
} catch {}
if (!channel) return void run();
const lead = (steal) => {
queued?.abort();
const { signal } = (queued = new AbortController());
leads = steal;
locks.request(name, steal ? { steal } : { signal }, () => signal.aborted || run()).catch(({ name }) => {
if (signal.aborted) return;
resign();
if (name === "AbortError") return lead(false);
channel = channel.close();
run();
});
};
const ask = () => {
if (leads) return;
channel.postMessage(["ask"]);
clearTimeout(patience);
patience = setTimeout(() => leads || document?.hidden || lead(true), 3000);
};
channel.onmessage = ({ data: [kind, value, from, id] }) => {
if (value?.retryIn === null) return hear(kind, value);
if (kind === "ask") return leads && tell("onState", this.state);
if (leads) return;
clearTimeout(patience);
const own = this.lastEventId;
const ahead = own && own !== from ? distance(own, from) : 0;
if (ahead < 0) return lead(true);
if (ahead > 0 && !(distance(own, id) < 0)) {
if (/State|Refused/.test(kind)) hear(kind, value, own);
return;
}
if (isNaN(ahead)) hear("onGap", { reason: "epoch", missed: null }, from);
hear(kind, value, id);
};
document?.addEventListener("visibilitychange", ask);
lead(false);
ask();
}
}
