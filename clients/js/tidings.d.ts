/**
 * An event that is neither a gap nor a refusal nor a heartbeat. The names `gap` and `refused` are reserved: data that is JSON
 * with a `reason` does not get here.
 */
export interface TidingsEvent {
  /** The field `event`, or `"message"`. */
  type: string;
  data: string;
  /** The id of the event, or else the last id before it. */
  id: string;
}

/** Events were lost, and the stream goes on after them. */
export interface Gap {
  /**
   * - `"epoch"`: the server does not know the id: it has restarted, or has dropped the whole history. What the page has may
   *   be out of date or of another history: drop it, and load the state again.
   * - `"lagged"`, `"evicted"`, `"backplane"`: what the page has is right but not complete. Load what is missing, or the
   *   state.
   * - `"reconnect"`: the client reconnected without an id, because the server keeps no history, or an `EventSource` has
   *   received no event yet. Treat it as `"evicted"`. The client makes this one, the server all others.
   */
  reason: "epoch" | "lagged" | "evicted" | "backplane" | "reconnect" | (string & {});
  /** How many events, where that is known. With `share` it may count events that this tab has. */
  missed: number | null;
  /** Whether to drop what the page has: `true` for `"epoch"`. */
  drop: boolean;
}

/** The server opened no stream. */
export interface Refusal {
  /**
   * 204: the stream is complete, and nothing is wrong. 401: log in. 200: a response that is no event stream, or an empty one.
   * Absent if the server sent the event `refused`.
   */
  status?: number;
  /**
   * In milliseconds. `null`: there is no further attempt, the client is closed. Absent for the event `refused`, after which the
   * pause is the server's `retry:` and does not grow.
   */
  retryIn?: number | null;
  /** Of the event `refused`, which `RefusalForm::ComeBack` sends: what is full. */
  reason?: "user_full" | "total_full" | "shutting_down" | (string & {});
  /** Of the event `refused`: how many connections there may be. */
  cap?: number | null;
}

/**
 * An `EventSource` that waits to reconnect is `"connecting"` as well. A refusal by the event `refused` is a stream, so the state
 * is `"open"` until that ends.
 */
export type State = "connecting" | "open" | "closed";

export interface TidingsOptions {
  onEvent?(event: TidingsEvent): void;
  onGap?(gap: Gap): void;
  onRefused?(refusal: Refusal): void;
  onState?(state: State): void;
  /**
   * The names of the events to receive; `"message"` always is. With names, and without `headers`, the client uses the
   * browser's `EventSource`, which hears no event it was not given the name of. Without, it reads the stream by `fetch`, and
   * receives all events.
   */
  events?: readonly string[];
  /**
   * Whether all tabs of the browser use one stream. Needs HTTPS or localhost; elsewhere, and where the browser forbids locks,
   * each tab has its own. Not for a stream that starts from the beginning (`or_from_start`), such as a run: a tab without an
   * id joins where the leading tab is and never gets the earlier events, and a 204 for one tab closes all of them.
   */
  share?: boolean;
  /** Where to resume: a `lastEventId` of an earlier client. */
  lastEventId?: string;
  /**
   * After how many milliseconds without a byte to reconnect; 0 for never. Choose at least twice the server's keep-alive
   * interval. An `EventSource` does not show comments, so there it counts from the first heartbeat event: the server must
   * send `KeepAlive::heartbeat_event()`. With `share`, also after how long a visible tab asks whether the leading one still
   * runs (0: 45,000). Default: 45,000.
   */
  silence?: number;
  /** The shortest wait before a reconnect in milliseconds; a longer `retry:` of the server counts. Default: 1,000. */
  minDelay?: number;
  /** What the wait grows to, doubled after each failure; a longer `Retry-After` counts. Default: 30,000. */
  maxDelay?: number;
  /** Sent with each request, e.g. `authorization`. A function is called for each. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** `"include"` sends cookies to another origin. */
  credentials?: RequestCredentials;
}

/** Follows an event stream, from the constructor until `close()`. */
export class Tidings {
  /** Throws if the URL is invalid. A relative one is resolved against the page. */
  constructor(url: string | URL, options?: TidingsOptions);
  readonly state: State;
  /** The id to resume from. In a handler it is that of the event, so it can be stored with what the handler makes of it. */
  readonly lastEventId: string;
  /** Ends the stream, or leaves it to another tab. No handler but `onState` is called after that. */
  close(): void;
}
