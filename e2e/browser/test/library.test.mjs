// tidegate.js against a gateway that fails on command: the faults that no real server commits when asked to.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import WebSocket from "ws";
import { FakeGateway } from "../fake/gateway.mjs";
import { eventually } from "../support/eventually.mjs";
import { Tidegate, TidegateError } from "../../../gateway/web/tidegate.js";

const CHANNELS = ["demo", "score:42"];
let gateway;
let open = [];

beforeEach(async () => {
  gateway = await new FakeGateway().listen();
});
afterEach(async () => {
  for (const tide of open) tide.close();
  open = [];
  await gateway.stop();
});

/** A client that keeps what it is told. */
function follow(options = {}) {
  const tide = new Tidegate({ url: `${gateway.url}/v1/events`, channels: CHANNELS, WebSocket, ...options });
  Object.assign(tide, { events: [], states: [], losses: [], closes: [], used: [] });
  tide.onevent = (event) => tide.events.push(event);
  tide.onstate = (state) => tide.states.push(state);
  tide.onlost = tide.ongap = (channel, reason) => tide.losses.push({ channel, reason });
  tide.onclose = (closed) => tide.closes.push(closed);
  tide.ontransport = (transport) => tide.used.push(transport);
  open.push(tide);
  return tide;
}

const isOpen = (tide, count = 1) => eventually(`${count} opened`, () => tide.states.length >= count && tide.cursor);
const publish = (n, channel = "demo") => gateway.publish({ channel, data: { n } });
const numbers = (tide) => tide.events.map(({ data }) => data.n);
const range = (from, to) => Array.from({ length: to - from }, (_, at) => from + at);
const transports = () => gateway.requests.map(({ transport }) => transport);

async function receives(tide, expected, deadlineMs) {
  await eventually(`${expected.length} events`, () => tide.events.length >= expected.length, deadlineMs);
  assert.deepEqual(numbers(tide), expected);
}

for (const transport of ["websocket", "sse", "ndjson", "poll", "shortpoll"]) {
  describe(transport, () => {
    test("delivers events and moves the cursor", async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      const first = tide.cursor;
      for (const n of range(0, 10)) publish(n, CHANNELS[n % 2]);
      await eventually("ten events", () => tide.events.length === 10);
      assert.deepEqual(numbers(tide).sort((a, b) => a - b), range(0, 10));
      await eventually("a new cursor", () => tide.cursor !== first);
      assert.deepEqual(tide.used, [transport]);
      assert.deepEqual(tide.states[0].fresh, CHANNELS);
    });

    test("a cut loses nothing and repeats nothing", async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      publish(0);
      await receives(tide, [0]);
      gateway.fault = () => ({ rewind: 1 }); // What is resumed begins one event early.
      gateway.cut();
      range(1, 50).forEach((n) => publish(n));
      await receives(tide, range(0, 50));
      assert.ok(tide.repeats >= 1, "the repeat was seen and dropped");
      assert.deepEqual(tide.losses, []);
    });

    test("reconnect() resumes at once, close() ends it", async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      tide.reconnect();
      publish(0);
      await receives(tide, [0]);
      tide.close();
      assert.equal(tide.closes.at(-1).final, true);
      const asked = gateway.requests.length;
      publish(1);
      gateway.cut();
      await new Promise(setImmediate);
      assert.deepEqual([numbers(tide), gateway.requests.length], [[0], asked]);
    });

    test("a loss is told", async () => {
      const lost = [{ channel: "demo", reason: "expired" }];
      gateway.fault = () => ({ lost });
      const tide = follow({ transports: [transport], cursor: "WzAsMF0" });
      await eventually("the loss", () => tide.losses.length > 0);
      assert.deepEqual(tide.losses[0], lost[0]);
    });
  });
}

describe("falling from transport to transport", () => {
  test("a blocked WebSocket: SSE at once", async () => {
    gateway.fault = (_, transport) => (transport === "websocket" ? { accept: "drop" } : undefined);
    const tide = follow();
    await isOpen(tide);
    publish(0);
    await receives(tide, [0]);
    assert.deepEqual(tide.used, ["sse"]);
    assert.equal(tide.closes[0].retryMs, 0);
  });

  test("no WebSocket on this platform: SSE first", async () => {
    const tide = follow({ WebSocket: undefined });
    const expected = globalThis.WebSocket ? "websocket" : "sse";
    await isOpen(tide);
    assert.deepEqual(tide.used, [expected]);
  });

  test("WebSocket and SSE blocked: long polling", async () => {
    gateway.fault = (_, transport) => (transport === "poll" ? undefined : { accept: "drop" });
    const tide = follow();
    await isOpen(tide);
    publish(0);
    await receives(tide, [0]);
    assert.deepEqual(tide.used, ["poll"]);
  });

  test("one cursor over three transports under publish", { timeout: 60_000 }, async () => {
    let allowed = "websocket";
    gateway.fault = (_, transport) => (transport === allowed ? undefined : { accept: "drop" });
    const tide = follow();
    await isOpen(tide);
    let n = 0;
    for (const next of ["sse", "poll"]) {
      for (let i = 0; i < 20; i += 1) publish((n += 1));
      allowed = next;
      gateway.cut();
      for (let i = 0; i < 20; i += 1) publish((n += 1));
      await receives(tide, range(1, n + 1), 25_000); // Three tries, with backoff, before it leaves what has worked.
    }
    assert.deepEqual(tide.used, ["websocket", "sse", "poll"]);
    assert.deepEqual(tide.losses, []);
  });

  test("a transport that has worked is given time to come back", async () => {
    const tide = follow();
    await isOpen(tide);
    let refusals = 0;
    gateway.fault = (_, transport) => (transport === "websocket" && (refusals += 1) <= 2 ? { accept: "drop" } : undefined);
    gateway.cut();
    publish(0);
    await receives(tide, [0]);
    assert.deepEqual(transports(), Array(4).fill("websocket"));
  });

  test("a full server that says so is no reason to leave the transport for good", async () => {
    let isFull = true;
    gateway.fault = (_, transport) => {
      if (!isFull) return undefined;
      if (transport === "websocket") return { status: 503 }; // Which a page cannot see.
      isFull = false;
      return { status: 503, title: "overloaded", retryMs: 50 };
    };
    const tide = follow();
    await isOpen(tide);
    assert.deepEqual(tide.used, ["websocket"]);
    assert.deepEqual(transports(), ["websocket", "sse", "websocket"]);
    assert.ok(tide.closes[1].retryMs >= 50, "waits at least as long as it was told");
  });

  test("the next transport follows when a proxy swallows a stream", { timeout: 30_000 }, async () => {
    gateway.fault = (_, transport) => (transport === "websocket" ? { accept: "drop" } : transport === "sse" ? { accept: "hang" } : undefined);
    const tide = follow();
    await eventually("long polling", () => tide.used.includes("poll"), 15_000);
  });
});

describe("closes", () => {
  for (const transport of ["websocket", "sse", "ndjson"]) {
    test(`${transport}: a drain is waited out as long as told`, async () => {
      const times = [];
      gateway.fault = () => {
        times.push(performance.now());
        return times.length === 1 ? { close: { code: 1012, reason: "draining", retry_ms: 300 } } : undefined;
      };
      const tide = follow({ transports: [transport] });
      await isOpen(tide, 2);
      assert.deepEqual({ ...tide.closes[0], retryMs: 0 }, { code: 1012, reason: "draining", final: false, retryMs: 0 });
      assert.ok(times[1] - times[0] >= 290, `came back after ${times[1] - times[0]} ms`);
    });

    test(`${transport}: 4403 is final`, async () => {
      gateway.fault = () => ({ close: { code: 4403, reason: "forbidden" } });
      const tide = follow({ transports: [transport] });
      await eventually("the end", () => tide.closes.some(({ final }) => final));
      assert.deepEqual(tide.closes, [{ code: 4403, reason: "forbidden", final: true, retryMs: 0 }]);
      assert.equal(gateway.requests.length, 1);
    });
  }

  test("a refusal by HTTP status is final where it is the client's mistake", async () => {
    gateway.fault = () => ({ status: 400, title: "bad_channel" });
    const tide = follow({ transports: ["poll"] });
    await eventually("the end", () => tide.closes.length > 0);
    assert.deepEqual(tide.closes, [{ code: 4400, reason: "bad_channel", final: true, retryMs: 0 }]);
  });

  test("too many requests are not final", async () => {
    let count = 0;
    gateway.fault = () => ((count += 1) === 1 ? { status: 429, title: "rate_limited", retryMs: 20 } : undefined);
    const tide = follow({ transports: ["poll"] });
    await isOpen(tide);
    assert.equal(tide.closes[0].code, 4429);
  });
});

describe("tokens", () => {
  test("travel in a header, and in the query only where there are no headers", async () => {
    gateway.fault = (_, transport) => (transport === "websocket" ? { accept: "drop" } : undefined);
    const tide = follow({ token: "secret" });
    await isOpen(tide);
    const [webSocket, sse] = gateway.requests;
    assert.equal(webSocket.url.searchParams.get("token"), "secret");
    assert.equal(sse.url.searchParams.get("token"), null);
    assert.equal(sse.authorization, "Bearer secret");
  });

  for (const transport of ["websocket", "sse", "poll"]) {
    test(`${transport}: a refused token is replaced once, at once`, async () => {
      const tokens = ["old", "new"];
      gateway.fault = (_, name, url) => {
        const token = url.searchParams.get("token") ?? gateway.requests.at(-1).authorization?.slice(7);
        if (token === "new") return undefined;
        return name === "poll" ? { status: 401, title: "token_expired" } : { close: { code: 4401, reason: "token_expired" } };
      };
      const tide = follow({ token: async () => tokens.shift(), transports: [transport] });
      await eventually("a second connection", () => gateway.requests.length >= 2 && tide.states.length > 0);
      publish(0);
      await receives(tide, [0]);
    });
  }

  test("a new token that is refused as well is final", async () => {
    let asked = 0;
    gateway.fault = () => ({ status: 401, title: "unauthorized" });
    const tide = follow({ token: () => `token ${(asked += 1)}`, transports: ["sse"] });
    await eventually("the end", () => tide.closes.at(-1)?.final);
    assert.deepEqual([asked, tide.closes.at(-1).code], [2, 4401]);
  });

  test("a token service that is down only delays", async () => {
    let asked = 0;
    const token = async () => {
      if ((asked += 1) === 1) throw new Error("down");
      return "good";
    };
    const tide = follow({ token });
    await isOpen(tide);
    assert.equal(tide.closes[0].reason, "down");
  });
});

describe("messages", () => {
  for (const transport of ["websocket", "sse"]) {
    test(`${transport}: are acked`, async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      const ack = await tide.send({ text: "hi" }, { channel: "demo" });
      assert.equal(ack.type, "ack");
      assert.ok(ack.pos);
      assert.deepEqual({ ...gateway.upstream[0], ref: "" }, { channel: "demo", data: { text: "hi" }, ref: "" });
      assert.equal(transports().includes("post"), transport === "sse");
    });

    test(`${transport}: a refusal rejects with the problem`, async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      gateway.fault = () => ({ status: 413, title: "too_large" });
      await assert.rejects(tide.send("x"), (error) => error instanceof TidegateError && error.problem.title === "too_large" && !error.indeterminate);
    });

    test(`${transport}: a cut leaves the outcome open, and says so`, async () => {
      const tide = follow({ transports: [transport] });
      await isOpen(tide);
      gateway.fault = () => ({ accept: "drop" });
      await assert.rejects(tide.send("x"), (error) => error.indeterminate === true);
    });
  }

  test("a token that expired meanwhile is replaced for a POST", async () => {
    const tokens = ["old", "new"];
    const tide = follow({ transports: ["sse"], token: () => tokens.shift() });
    await isOpen(tide);
    gateway.fault = () => (gateway.requests.at(-1).authorization === "Bearer new" ? undefined : { status: 401, title: "token_expired" });
    assert.equal((await tide.send("x")).type, "ack");
  });
});

describe("bytes", () => {
  for (const transport of ["sse", "ndjson"]) {
    for (const splitBytes of [1, 7]) {
      test(`${transport}: pieces of ${splitBytes} change nothing`, async () => {
        gateway.fault = () => ({ splitBytes });
        const tide = follow({ transports: [transport] });
        await isOpen(tide);
        const data = { n: 0, text: "line\nline\r\n\u2028 é 𝄞 data: x\nid: y", deep: [[[]]] };
        gateway.publish({ channel: "demo", event: "naïve 名", data });
        await receives(tide, [0]);
        assert.deepEqual([tide.events[0].data, tide.events[0].event], [data, "naïve 名"]);
      });
    }

    test(`${transport}: a stream cut at any byte delivers each event once`, { timeout: 60_000 }, async () => {
      range(0, 5).forEach((n) => publish(n));
      for (let cutAfterBytes = 300; cutAfterBytes < 1100; cutAfterBytes += 53) {
        let isFirst = true;
        gateway.fault = () => (isFirst ? ((isFirst = false), { cutAfterBytes }) : undefined);
        const tide = follow({ transports: [transport], cursor: "WzAsMF0" });
        await eventually("an end", () => tide.closes.length > 0 || tide.events.length === 5);
        tide.reconnect(); // Without waiting for the backoff.
        await receives(tide, range(0, 5));
        tide.close();
      }
    });
  }
});

describe("the application", () => {
  for (const transport of ["websocket", "sse", "ndjson", "poll"]) {
    test(`${transport}: may close from within a callback, and the cursor stays behind what was not delivered`, async () => {
      range(0, 5).forEach((n) => publish(n));
      const first = follow({ transports: [transport], cursor: "WzAsMF0" });
      first.onevent = (event) => {
        first.events.push(event);
        if (event.data.n === 2) first.close();
      };
      await eventually("the end", () => first.closes.some(({ final }) => final));
      await new Promise(setImmediate);
      assert.deepEqual(numbers(first), [0, 1, 2]);
      const second = follow({ transports: [transport], cursor: first.cursor });
      await eventually("the last event", () => numbers(second).includes(4));
      assert.deepEqual(numbers(second).filter((n) => n > 2), [3, 4]);
    });
  }

  test("a callback that throws costs no event", async () => {
    const uncaught = [];
    const keep = (error) => uncaught.push(error.message);
    const before = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException").on("uncaughtException", keep);
    try {
      const tide = follow();
      const seen = [];
      tide.onevent = (event) => {
        seen.push(event.data.n);
        throw new Error(`of ${event.data.n}`);
      };
      await isOpen(tide);
      range(0, 3).forEach((n) => publish(n));
      await eventually("three events", () => seen.length === 3 && uncaught.length === 3);
      assert.deepEqual(seen, [0, 1, 2]);
      assert.deepEqual(uncaught, ["of 0", "of 1", "of 2"]);
    } finally {
      process.removeListener("uncaughtException", keep);
      for (const listener of before) process.on("uncaughtException", listener);
    }
  });

  test("may listen for events instead of setting callbacks", async () => {
    const tide = follow();
    const seen = [];
    tide.addEventListener("event", ({ detail }) => seen.push(detail.data.n));
    await isOpen(tide);
    publish(7);
    await eventually("the event", () => seen.length === 1);
  });

  test("keeps its cursor where it is told to, and starts from there", async () => {
    let kept;
    const storage = { load: () => kept, save: (cursor) => (kept = cursor) };
    const first = follow({ storage });
    await isOpen(first);
    first.close();
    range(0, 3).forEach((n) => publish(n));
    const second = follow({ storage });
    await receives(second, [0, 1, 2]);
    assert.equal(kept, second.cursor);
  });

  test("since and last are asked for only without a cursor", async () => {
    const tide = follow({ transports: ["poll"], since: "90s", last: 5 });
    await eventually("two polls", () => gateway.requests.length >= 2);
    const [first, second] = gateway.requests.map(({ url }) => url.searchParams);
    assert.deepEqual([first.get("since"), first.get("last"), first.get("wait")], ["90s", "5", "0s"]);
    assert.deepEqual([second.get("since"), second.get("last"), second.get("wait")], [null, null, "25s"]);
    assert.ok(second.get("cursor"));
    tide.close();
  });

  test("ephemeral events pass without a position", async () => {
    const tide = follow();
    await isOpen(tide);
    gateway.publish({ channel: "demo", data: { n: 1 }, ephemeral: true });
    gateway.publish({ channel: "demo", data: { n: 1 }, ephemeral: true });
    await receives(tide, [1, 1]);
  });
});
