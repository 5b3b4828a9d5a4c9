/**
 * tidegate.js: follow channels over the best transport that works, and miss nothing.
 *
 *     import { Tidegate } from "/tidegate.js"; // also sets globalThis.Tidegate
 *     const tide = new Tidegate({ channels: ["score:42"] });
 *     tide.onevent = ({ channel, event, data }) => …;
 *     tide.onlost = (channel, reason) => reloadFromYourBackend(channel);
 *
 * WebSocket, else Server-Sent Events, else long polling; one cursor over all of them, so that a change of transport,
 * network or server process loses nothing. Repeats that may follow a resume are dropped by `pos`. No dependency; runs
 * in browsers and in Node 20 or later (whose missing WebSocket only means that it starts with the next transport).
 *
 * Server-Sent Events are read with `fetch`, not EventSource: EventSource cannot send a token in a header and reports a
 * refused token, a full server and a dead network as the same bare `error`, so nobody could tell whether to come back.
 *
 * @typedef {"websocket"|"sse"|"ndjson"|"poll"|"shortpoll"} Transport
 * @typedef {{type: "event", channel: string, event: string, data?: any, data_b64?: string, time: number, pos?: string,
 *   id?: string}} TideEvent `data_b64` stands for data that is not JSON; an ephemeral event has no `pos`.
 * @typedef {{recovered: string[], fresh: string[], lost: {channel: string, reason: string}[], pending?: string[]}} Told
 *   what became of each channel when a connection opened.
 * @typedef {{code: number, reason: string, final: boolean, retryMs: number}} Closed `retryMs`: when it tries again.
 * @typedef {{type: "ack", seq: number, pos: string, ref?: string}} Ack
 * @typedef {object} Options
 * @property {string[]} [channels] what to follow
 * @property {string} [url] the endpoint; default `/v1/events` of this page's server
 * @property {string|(() => string|Promise<string>)} [token] a JWT, or what makes one; asked again once it is refused
 * @property {string} [user] the user's name, where the server runs without tokens
 * @property {string} [cursor] resume from here: `tide.cursor` of any earlier connection on any transport
 * @property {string} [since] without a cursor: start this far back (`"90s"`, or `"start"`)
 * @property {number} [last] without a cursor: start with the last so many events of each channel
 * @property {Transport[]} [transports] in order of preference; default WebSocket, SSE, long poll
 * @property {{load?: () => any, save?: (cursor: string) => void}} [storage] keeps the cursor over page loads. `save` is
 *   called on each change and may skip some: an old cursor costs repeats, never an event.
 * @property {typeof WebSocket} [WebSocket] a WebSocket class, where the platform has none
 */

const OPEN_MS = 10_000; // A connection whose `state` takes longer is stuck in a proxy that buffers: next transport.
const SILENCE_MS = 60_000; // Streams are pinged every 25 s; two missed pings mean that nobody is there.
const POLL_WAIT_S = 25; // Below the 30 s after which impatient proxies cut.
const SHORT_POLL_MS = 1_000;
const BACKOFF_MS = { base: 1_000, cap: 30_000 };
const STABLE_MS = 5_000; // Only a connection that lived this long resets the backoff; one that opened shortens it.
const BEST_AGAIN_MS = 300_000; // So long after it failed, the preferred transport gets another chance.
const ACK_MS = 10_000;

/** A message that was refused or whose fate is unknown. */
export class TidegateError extends Error {
  /** @param {string} message @param {{problem?: any, indeterminate?: boolean}} [detail] */
  constructor(message, { problem, indeterminate = false } = {}) {
    super(message);
    this.name = "TidegateError";
    /** The server's problem object, if it answered. */
    this.problem = problem;
    /** True when the message may have been accepted nevertheless. */
    this.indeterminate = indeterminate;
  }
}

/** A connection that returns by itself. Set the `on…` callbacks, or listen for the events of the same names. */
export class Tidegate extends EventTarget {
  /** @type {((event: TideEvent) => void)|null} each event, in order per channel, without repeats */
  onevent = null;
  /** @type {((told: Told) => void)|null} a connection is open */
  onstate = null;
  /** @type {((channel: string, reason: string) => void)|null} events are gone for good: reload this channel's truth */
  onlost = null;
  /** @type {((channel: string, reason: string) => void)|null} as `onlost`, within a connection: it was read too slowly */
  ongap = null;
  /** @type {((closed: Closed) => void)|null} a connection ended; unless `final`, another one follows by itself */
  onclose = null;
  /** @type {((transport: Transport) => void)|null} from now on events arrive this way */
  ontransport = null;

  /** @type {string|undefined} everything before it has been handed to you; pass it to any later connection */
  cursor;
  /** @type {Transport|undefined} the transport in use */
  transport;
  /** How many repeats were dropped. */
  repeats = 0;

  #options;
  #transports;
  #index = 0; // of the transport to try
  #proven = new Set(); // transports that have worked: these get more patience
  #strikes = 0; // failures in a row of the transport at #index
  #failures = 0; // failures in a row, for the backoff
  #bestFailedAt = 0;
  #token; // a promise once asked for
  #refreshed = false; // the token is new and has not been accepted yet
  #seen = new Map(); // channel -> [log epoch and partition, offset] of its last event: bounded by the channels
  /** @type {WebSocket|null} */
  #socket = null; // while it is open
  #acks = new Map(); // ref -> how to settle a sent message
  #ref = 0;
  #closing = null; // the `close` object of this connection
  #opened = false; // this connection has had its `state`
  #connection = new AbortController();
  #closed = false;
  #wake = () => {};

  /** @param {Options} [options] */
  constructor(options = {}) {
    super();
    this.#options = options;
    const Socket = options.WebSocket ?? globalThis.WebSocket;
    const wanted = options.transports ?? ["websocket", "sse", "poll"];
    this.#transports = wanted.filter((transport) => transport !== "websocket" || Socket);
    if (this.#transports.length === 0) throw new TypeError("none of the transports exists on this platform");
    this.cursor = options.cursor;
    globalThis.addEventListener?.("online", this.#online);
    this.#run();
  }

  /** Ends it for good. The cursor stays readable. */
  close() {
    this.#finish({ code: 1000, reason: "closed by the application" });
  }

  /** Drops the connection, if there is one, and resumes at once. */
  reconnect() {
    this.#connection.abort();
    this.#wake();
  }

  /**
   * Says something to the backend. Resolves once the log has it.
   * @param {any} data any JSON value
   * @param {{channel?: string}} [about]
   * @returns {Promise<Ack>} rejects with a TidegateError; never sends twice by itself
   */
  async send(data, { channel } = {}) {
    const ref = String(++this.#ref);
    const message = JSON.stringify({ channel, data, ref });
    const socket = this.#socket;
    if (socket?.readyState !== 1) return this.#post(message);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(ref, unknownFate("no answer in time")), ACK_MS);
      this.#acks.set(ref, { resolve, reject, timer });
      socket.send(message);
    });
  }

  // ---- the life of it: try, listen, wait, try again ----

  async #run() {
    this.cursor ??= (await this.#options.storage?.load?.()) ?? undefined;
    while (!this.#closed) {
      if (this.#bestFailedAt && Date.now() - this.#bestFailedAt > BEST_AGAIN_MS) this.#restartOrder();
      const transport = this.#transports[this.#index];
      const startedAt = Date.now();
      const end = await this.#attempt(transport);
      if (this.#closed) return;
      if (isUnauthorized(end.code) && this.#mayRefresh()) continue;
      if (isFinal(end.code)) return this.#finish(end);
      if (end.code === 0) continue; // Dropped on purpose.
      const wasStable = this.#opened && Date.now() - startedAt > STABLE_MS;
      this.#failures = wasStable ? 1 : Math.min(this.#failures + 1, this.#opened ? 3 : 32);
      const tryNextNow = this.#judge(transport, end);
      const retryMs = tryNextNow ? 0 : backoff(this.#failures, end.retry_ms);
      this.#emit("close", { code: end.code, reason: end.reason ?? "", final: false, retryMs });
      if (retryMs > 0) await this.#sleep(retryMs);
    }
  }

  /** Decides which transport is next. True when it is another one, which need not wait. */
  #judge(transport, end) {
    if (this.#opened) return false;
    // A server that says when to come back can be reached: it may have refused the transports before this one, too.
    if (end.retry_ms !== undefined) return this.#restartOrder();
    // A transport that never worked here is probably blocked; one that did probably met a restart.
    this.#strikes += 1;
    if (this.#strikes < (this.#proven.has(transport) ? 3 : 1)) return false;
    if (this.#index === 0) this.#bestFailedAt = Date.now();
    this.#strikes = 0;
    this.#index = (this.#index + 1) % this.#transports.length;
    return this.#index !== 0;
  }

  #restartOrder() {
    this.#index = this.#strikes = this.#bestFailedAt = 0;
    return false;
  }

  /** One connection, from its request to its end. Never rejects. */
  async #attempt(transport) {
    const connection = (this.#connection = new AbortController());
    this.#closing = null;
    this.#opened = false;
    let timer, timedOut;
    const within = (ms) => {
      clearTimeout(timer);
      timer = ms && setTimeout(() => connection.abort((timedOut = true)), ms);
    };
    within(OPEN_MS);
    try {
      const token = await (this.#token ??= this.#askToken());
      const end = await this.#connect(transport, token, connection.signal, within);
      return this.#closing ?? end;
    } catch (error) {
      if (this.#closing) return this.#closing;
      if (connection.signal.aborted && !timedOut) return { code: 0 };
      return { code: 1006, reason: timedOut ? "timed out" : error instanceof Error ? error.message : String(error) };
    } finally {
      clearTimeout(timer);
      connection.abort(); // A stream that we stopped reading is not left open.
    }
  }

  #connect(transport, token, signal, within) {
    switch (transport) {
      case "websocket": return this.#webSocket(token, signal, within);
      case "sse": return this.#stream("text/event-stream", sseReader, token, signal, within);
      case "ndjson": return this.#stream("application/x-ndjson", ndjsonReader, token, signal, within);
      case "poll": return this.#poll(POLL_WAIT_S, 0, token, signal, within);
      case "shortpoll": return this.#poll(0, SHORT_POLL_MS, token, signal, within);
      default: throw new TypeError(`unknown transport ${transport}`);
    }
  }

  // ---- the transports ----

  #webSocket(token, signal, within) {
    return new Promise((resolve, reject) => {
      const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
      const url = this.#url("/v1/events", token && { token }); // A browser's WebSocket cannot send headers.
      url.protocol = url.protocol.replace("http", "ws");
      const socket = new Socket(url.href);
      signal.addEventListener("abort", () => {
        socket.onmessage = socket.onclose = null;
        socket.close();
        this.#abandonAcks();
        reject(new Error("aborted"));
      });
      socket.onmessage = ({ data }) => {
        this.#take(JSON.parse(data), "websocket");
        // No deadline from here: pings are frames that a page never sees. TCP and the server notice a dead peer.
        if (this.#opened) within(0), (this.#socket = socket);
      };
      socket.onerror = () => {}; // The close that follows says as much; some classes insist on a listener.
      socket.onclose = ({ code, reason }) => {
        this.#abandonAcks();
        resolve({ code, reason });
      };
    });
  }

  async #stream(accept, reader, token, signal, within) {
    const response = await fetch(this.#url("/v1/events"), this.#request(token, { signal, headers: { accept } }));
    if (!response.ok) return refusal(response);
    const transport = reader === sseReader ? "sse" : "ndjson";
    const onLine = reader((object, id) => this.#take(object, transport, id));
    const decoder = new TextDecoder();
    let rest = "";
    for (const body = /** @type {ReadableStream} */ (response.body).getReader(); ; ) {
      const { done, value } = await body.read();
      if (done) return { code: 1006, reason: "the stream ended" };
      if (this.#opened) within(SILENCE_MS);
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        onLine(line.replace(/\r$/, ""));
        if (signal.aborted) return { code: 0 };
      }
    }
  }

  async #poll(waitS, pauseMs, token, signal, within) {
    const transport = pauseMs ? "shortpoll" : "poll";
    while (!this.#bestFailedAt || Date.now() - this.#bestFailedAt < BEST_AGAIN_MS) {
      within(OPEN_MS + waitS * 1000);
      // The first poll does not wait: until it answers there is no cursor, and what happens meanwhile would be missed.
      const wait = this.#opened && this.cursor ? waitS : 0;
      const url = this.#url("/v1/events", { wait: `${wait}s` });
      const response = await fetch(url, this.#request(token, { signal, headers: { accept: "application/json" } }));
      if (!response.ok) return refusal(response);
      const { events, cursor, ...told } = await response.json();
      if (!this.#opened) this.#take({ type: "state", ...told }, transport);
      else this.#tellLost(told);
      for (const event of events) {
        this.#take(event, transport);
        if (signal.aborted) return { code: 0 }; // The cursor does not pass what was not delivered.
      }
      this.#moveTo(cursor);
      this.#failures = 0;
      if (pauseMs) await this.#sleep(pauseMs);
      if (signal.aborted) break;
    }
    return { code: 0 };
  }

  async #post(message) {
    for (;;) {
      const token = await (this.#token ??= this.#askToken());
      const request = { method: "POST", body: message, headers: { "content-type": "application/json" } };
      const signal = AbortSignal.timeout(ACK_MS);
      const response = await fetch(this.#url("/v1/messages"), this.#request(token, { ...request, signal }))
        .catch((error) => { throw unknownFate(error.message); });
      if (response.ok) return response.json();
      const { problem } = await refusal(response);
      if (response.status === 401 && this.#mayRefresh()) continue;
      const indeterminate = response.status === 504;
      throw new TidegateError(problem?.detail ?? `refused with ${response.status}`, { problem, indeterminate });
    }
  }

  #url(path, more = {}) {
    const { url = "/v1/events", channels = [], user, since, last } = this.#options;
    const target = new URL(url, globalThis.location?.href);
    if (path === "/v1/events") {
      for (const channel of channels) target.searchParams.append("channel", channel);
      const start = this.cursor ? { cursor: this.cursor } : { since, last };
      for (const [name, value] of Object.entries(start)) if (value) target.searchParams.set(name, String(value));
    } else {
      target.pathname = target.pathname.replace(/\/v1\/events$/, path);
    }
    for (const [name, value] of Object.entries({ user, ...more })) if (value) target.searchParams.set(name, value);
    return target;
  }

  #request(token, init) {
    const headers = token ? { ...init.headers, authorization: `Bearer ${token}` } : init.headers;
    return { cache: "no-store", ...init, headers };
  }

  // ---- what arrives ----

  /** Takes one object. `id` is where Server-Sent Events carry the cursor. */
  #take(object, transport, id) {
    switch (object?.type) {
      case "state": this.#takeState(object, transport); break;
      case "event": this.#takeEvent(object); break;
      case "gap": this.#emit("gap", object.channel, object.reason); break;
      case "close": this.#closing = object; break;
      case "ack": this.#settle(object.ref, null, object); break;
      case "nack": this.#settle(object.ref, new TidegateError(object.error?.detail, { problem: object.error })); break;
      default: // A ping, or something newer than this file: only its cursor matters.
    }
    this.#moveTo(id ?? object?.id ?? object?.cursor); // Last: a cursor counts once what precedes it is delivered.
  }

  #takeState(state, transport) {
    if (!this.#opened) {
      this.#opened = true;
      this.#proven.add(transport);
      this.#strikes = 0;
      this.#refreshed = false;
      if (this.transport !== transport) this.#emit("transport", (this.transport = transport));
    }
    this.#moveTo(state.cursor); // It stands before the events that follow.
    const { recovered = [], lost = [], fresh = [], pending } = state;
    this.#emit("state", { recovered, lost, fresh, pending });
    this.#tellLost(state);
  }

  #tellLost({ lost = [] }) {
    for (const { channel, reason } of lost) this.#emit("lost", channel, reason);
  }

  #takeEvent(event) {
    if (event.pos) {
      // In one channel, offsets only rise; so what is not above the last one has been here before.
      const dot = event.pos.lastIndexOf(".");
      const [log, offset] = [event.pos.slice(0, dot), Number(event.pos.slice(dot + 1))];
      const [lastLog, lastOffset] = this.#seen.get(event.channel) ?? [];
      if (log === lastLog && offset <= lastOffset) return void (this.repeats += 1);
      this.#seen.set(event.channel, [log, offset]);
    }
    this.#emit("event", event);
  }

  #moveTo(cursor) {
    if (!cursor || cursor === this.cursor) return;
    this.cursor = cursor;
    this.#options.storage?.save?.(cursor);
  }

  #emit(type, ...args) {
    // One callback that throws must not cost the events after it; the error still reaches the console.
    try { this[`on${type}`]?.(...args); } catch (error) { queueMicrotask(() => { throw error; }); }
    this.dispatchEvent(new CustomEvent(type, { detail: args.length > 1 ? args : args[0] }));
  }

  // ---- tokens, acks, waiting ----

  async #askToken() {
    const { token } = this.#options;
    try {
      return typeof token === "function" ? await token() : token;
    } catch (error) {
      this.#token = undefined; // Ask again next time.
      throw error;
    }
  }

  /** After a refused token: true when a new one can be asked for. Twice in a row is an answer. */
  #mayRefresh() {
    if (typeof this.#options.token !== "function" || this.#refreshed) return false;
    this.#token = undefined;
    this.#restartOrder();
    return (this.#refreshed = true);
  }

  #settle(ref, error, ack) {
    const message = this.#acks.get(ref);
    if (!message) return;
    this.#acks.delete(ref);
    clearTimeout(message.timer);
    if (error) message.reject(error);
    else message.resolve(ack);
  }

  #abandonAcks() {
    this.#socket = null;
    for (const ref of [...this.#acks.keys()]) this.#settle(ref, unknownFate("the connection ended"));
  }

  #finish({ code, reason = "" }) {
    if (this.#closed) return;
    this.#closed = true;
    globalThis.removeEventListener?.("online", this.#online);
    this.reconnect(); // Which, closed, only drops and wakes.
    this.#emit("close", { code, reason, final: true, retryMs: 0 });
  }

  #online = () => this.#wake(); // The network is back: do not sit out the backoff.

  /** @returns {Promise<void>} */
  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
  }
}

/** Full jitter on top of what the server asked for, so that a crowd that was cut together does not return together. */
function backoff(failures, retryMs = 0) {
  return retryMs + Math.random() * Math.min(BACKOFF_MS.cap, BACKOFF_MS.base * 2 ** (failures - 1));
}

const isUnauthorized = (code) => code === 4401;
const isFinal = (code) => code >= 4400 && code < 4500 && code !== 4408 && code !== 4429;
const unknownFate = (why) => new TidegateError(`not known whether it arrived: ${why}`, { indeterminate: true });

/** An HTTP refusal in the words of a close: code 4400 + x for status 400 + x, else "come back". */
async function refusal(response) {
  const problem = await response.json().catch(() => undefined); // A proxy's refusal is no problem object.
  const after = Number(response.headers.get("retry-after")) * 1000 || undefined;
  const code = problem && response.status < 500 ? 4000 + response.status : 1006;
  return { code, reason: problem?.title ?? `HTTP ${response.status}`, retry_ms: problem?.retry_ms ?? after, problem };
}

/** Reads the lines of a `text/event-stream`: only `data:` and `id:` matter, for the objects say themselves what they are. */
function sseReader(take) {
  let data = "", id;
  return (line) => {
    if (line.startsWith("data: ")) data += line.slice(6);
    else if (line.startsWith("id: ")) id = line.slice(4);
    else if (line === "") {
      if (data || id) take(data ? JSON.parse(data) : undefined, id);
      data = "", id = undefined;
    }
  };
}

function ndjsonReader(take) {
  return (line) => line && take(JSON.parse(line));
}

globalThis.Tidegate = Tidegate;
