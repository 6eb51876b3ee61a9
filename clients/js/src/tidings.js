// Follows an event stream of tidings. ../tidings.d.ts has the interface; docs/browser.md says when to use what.
//
// Comments stand on lines of their own: build.js drops them.

// How far one id is after another; NaN if they cannot be compared. An id is `<epoch>-<offset>`, and `~` may follow.
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
    // `opened`: a stream was open and has ended. `refused`: the present one is a refusal. `heard`: something was received.
    let retry = minDelay, opened, refused, heard, watchdog;
    // The number of the loop that may run, and what ends its present await.
    let term = 0, stop;
    // Only with `share`. `leads`: this tab has the stream. `queued`: aborts this tab's request for it.
    let channel, leads, queued, patience;

    const resign = () => {
      leads = false;
      term++;
      stop?.();
    };

    this.close = () => {
      hear("onState", "closed");
      resign();
      // It neither asks other tabs nor takes the lead any more.
      leads = true;
      queued?.abort();
      channel?.close();
      clearTimeout(patience);
      document?.removeEventListener("visibilitychange", ask);
    };

    // Calls the handler of the page. Before that it takes the id, which the handler may want to store.
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
        // Reported as any other error of the page. It must not end the stream, nor skip the other events of the chunk.
        setTimeout(() => { throw error; });
      }
      if (value.retryIn === null) this.close();
    };

    // The same in all tabs that share the stream. The message has the ids before and after it.
    const tell = (kind, value, id = this.lastEventId) => {
      if (this.state === "closed") return;
      channel?.postMessage([kind, value, this.lastEventId, id]);
      hear(kind, value, id);
    };

    const open = () => {
      // A reconnect without an id: the server cannot know what was missed, so it sends no gap. A tab that has just taken the
      // lead still says that the stream is open.
      if ((opened || this.state === "open") && !this.lastEventId) tell("onGap", { reason: "reconnect", missed: null });
      tell("onState", "open");
    };

    const emit = (type, data, id) => {
      const beat = data === '{"type":"heartbeat"}';
      // Without a reason it is an event of the service, as any other. Only the client itself says when it tries again.
      if (type === "gap" || type === "refused") try {
        const { retryIn, ...value } = JSON.parse(data);
        if (value.reason) return tell(type === "gap" ? "onGap" : "onRefused", value, id);
      } catch {}
      // The third condition is false for the event of `Cursor::Event`, the fourth for what an EventSource would not hear.
      if (type && !beat && data !== `{"id":"${id}"}` && (!events || type === "message" || events.includes(type)))
        tell("onEvent", { type, data, id }, id);
      // Only the position has moved. It is no handler's matter, but other tabs must know it.
      else if (id !== this.lastEventId) tell("", id, id);
      return beat;
    };

    const watch = () => {
      clearTimeout(watchdog);
      if (silence) watchdog = setTimeout(() => stop(), silence);
    };

    // Resolves when the EventSource gives up. Until then it reconnects by itself, which is better than a new one: it may
    // have received an id without data, which it does not show.
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
          // It does not show comments: silence means something only after a heartbeat event.
          beats = emit(type, data, lastEventId || this.lastEventId) || beats;
          if (beats) watch();
        });
    });

    // Resolves when the stream ends, with the answer if it was none or empty; rejects when it breaks.
    const read = async () => {
      const abort = new AbortController();
      stop = () => abort.abort();
      watch();
      const made = typeof headers === "function" ? headers() : headers;
      const aborted = new Promise((_, reject) => (abort.signal.onabort = reject));
      const request = new Headers(await Promise.race([made, aborted]));
      request.set("accept", "text/event-stream");
      // As UTF-8, as an EventSource does: fetch takes each character for a byte.
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
        // A `retry:` alone is how `RefusalForm::ComeBack` refuses.
        if (done) return content ? null : answer;
        heard = true;
        watch();
        // A CR at the end of the chunk may be half of a CRLF, so it waits for the next.
        const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
        rest = lines.pop();
        for (const line of lines) {
          const [, field, text] = /^([^:]*):?\x20?(.*)$/s.exec(line);
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
        // An EventSource does not say why it gave up. So fetch asks next, and reads the stream if it gets one.
        native = canBeNative && !native && heard;
        if (heard) failures = 0;
        const backoff = Math.min(maxDelay, retry * 2 ** failures);
        const pause = Math.max(retry, backoff, refusal?.headers.get("retry-after") * 1000 || 0);
        // The most that a timer takes is 2 ** 31 - 1.
        const retryIn = Math.min(pause * (1 + Math.random() / 2), 2e9);
        if (refusal) {
          const { status } = refusal;
          tell("onRefused", { status, retryIn: /^204|^4(?!08|25|29)/.test(status) ? null : retryIn });
        }
        tell("onState", "connecting");
        // A handler may have closed it.
        if (own !== term) return;
        await new Promise((resolve) => {
          const timer = setTimeout(resolve, retryIn);
          stop = () => resolve(clearTimeout(timer));
        });
        if (own !== term) return;
      }
    };

    // One tab holds the lock, and with it the stream. Each tab knows the id that it has got to. From the ids of a message a
    // tab sees whether it is where the leading tab was:
    // - The same place: it takes the message.
    // - The leader was ahead: this tab has missed something, so it takes the lead and resumes from its own id.
    // - The leader has no id yet: the same, since it would not resume.
    // - The leader was behind, because it resumes for itself: this tab skips what it has.
    // - Not comparable: this tab's id is of another history. It reports a gap and goes on with the leader.
    const name = `tidings ${url} ${events}`;

    // A leading tab that does not answer is suspended, as tabs in the background are on phones. A visible tab takes over.
    const ask = () => {
      if (leads) return;
      channel.postMessage(["ask"]);
      wait(3000, () => lead(true));
    };

    const wait = (time, then) => {
      clearTimeout(patience);
      patience = setTimeout(() => leads || document?.hidden || then(), time);
    };

    try {
      channel = locks && new BroadcastChannel(name);
    } catch {}
    // It may be forbidden, as locks may.
    if (!channel) return void run();

    const lead = (steal) => {
      queued?.abort();
      const { signal } = (queued = new AbortController());
      leads = steal;
      // A request that steals cannot be aborted: it may be granted after a close.
      locks.request(name, steal ? { steal } : { signal }, () => signal.aborted || run()).catch(({ name }) => {
        // Closed, or replaced by a request that steals.
        if (signal.aborted) return;
        resign();
        // Stolen by another tab: wait until the lead comes back.
        if (name === "AbortError") return lead(false);
        // The browser grants no locks here, for example in a sandboxed frame: this tab follows the stream alone.
        channel = channel.close();
        run();
      });
      if (!steal) ask();
    };

    channel.onmessage = ({ data: [kind, value, from, id] }) => {
      // For good. The lock of the tab that was refused may come before its message.
      if (value?.retryIn === null) return hear(kind, value);
      if (kind === "ask") return leads && tell("onState", this.state);
      if (leads) return;
      // It may be suspended later.
      wait(silence || 45000, ask);
      const own = this.lastEventId;
      const ahead = own && own !== from ? distance(own, from) : 0;
      if (ahead < 0 || (own && !from)) return lead(true);
      if (ahead > 0 && !(distance(own, id) < 0)) {
        if (/State|Refused/.test(kind)) hear(kind, value, own);
        return;
      }
      if (isNaN(ahead)) hear("onGap", { reason: "epoch", missed: null }, from);
      hear(kind, value, id);
    };
    document?.addEventListener("visibilitychange", ask);
    lead(false);
  }
}
