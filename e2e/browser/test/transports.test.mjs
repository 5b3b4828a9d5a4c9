// tidegate.js in a browser against the real server: which transport it takes, and that nothing is lost on the way.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, newPage } from "../support/browser.mjs";
import { eventually } from "../support/eventually.mjs";
import { Server } from "../support/tidegate.mjs";

const N = 120;

// What stands between a page and its server in the wild; each runs in the page before anything else.
const BLOCKS = {
  nothing: { expected: "websocket", init: () => {} },
  "WebSocket, which throws": {
    expected: "sse",
    init: () => {
      globalThis.WebSocket = class { constructor() { throw new DOMException("blocked", "SecurityError"); } };
    },
  },
  "WebSocket, which closes": {
    expected: "sse",
    init: () => {
      globalThis.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006, reason: "" })); } close() {} };
    },
  },
  "WebSocket and Server-Sent Events": {
    expected: "poll",
    init: () => {
      globalThis.WebSocket = class { constructor() { throw new DOMException("blocked", "SecurityError"); } };
      globalThis.EventSource = undefined;
      const { fetch } = globalThis;
      globalThis.fetch = (resource, init) =>
        init?.headers?.accept === "text/event-stream" ? Promise.reject(new TypeError("blocked")) : fetch(resource, init);
    },
  },
};

describe("tidegate.js", { timeout: 300_000 }, () => {
  let server, browser;
  before(async () => {
    server = await Server.start();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** Opens a page that follows two channels, and keeps what it gets. */
  async function follow(channels, init, options = {}) {
    const page = await newPage(browser, { init });
    await page.goto(`${server.origin}/tidegate.js`); // Some page of the server's own origin.
    await page.evaluate(async ([channels, options]) => {
      const { Tidegate } = await import("/tidegate.js");
      const tide = (globalThis.tide = new Tidegate({ channels, ...options }));
      Object.assign(tide, { got: [], losses: [], used: [], states: 0 });
      tide.onevent = ({ channel, data, pos }) => tide.got.push({ channel, n: data.n, pos });
      tide.onlost = tide.ongap = (...loss) => tide.losses.push(loss);
      tide.ontransport = (transport) => tide.used.push(transport);
      tide.onstate = () => (tide.states += 1);
    }, [channels, options]);
    await eventually("an open connection", () => page.evaluate(() => tide.states > 0 && Boolean(tide.cursor)), 20_000);
    return page;
  }

  const report = (page) => page.evaluate(() => ({ got: tide.got, losses: tide.losses, used: tide.used, repeats: tide.repeats, states: tide.states }));

  for (const [blocked, { expected, init }] of Object.entries(BLOCKS)) {
    test(`with ${blocked} blocked it uses ${expected}, and loses nothing over cuts, a kill and a drain`, async () => {
      const channels = [`${expected}.${crypto.randomUUID()}:a`, `${expected}.${crypto.randomUUID()}:b`];
      const page = await follow(channels, init);
      const acked = [];
      const faults = {
        [N / 6]: () => page.evaluate(() => tide.reconnect()),
        [N / 3]: () => server.kill().then(() => server.run()),
        [N / 2]: () => page.evaluate(() => tide.reconnect()),
        [(2 * N) / 3]: () => server.drain().then(() => server.run()),
      };
      let faulted = Promise.resolve();
      for (let n = 0; n < N; n += 1) {
        if (faults[n]) faulted = faulted.then(faults[n]); // While publishing goes on.
        const channel = channels[n % 2];
        acked.push({ channel, n, pos: (await server.publish({ channel, data: { n } })).pos });
      }
      await faulted;
      await eventually(`all ${N} events`, async () => (await report(page)).got.length >= N, 60_000).catch(() => {});
      const { got, losses, used } = await report(page);
      for (const channel of channels) {
        const of = (list) => list.filter((event) => event.channel === channel);
        assert.deepEqual(of(got), of(acked), `${channel}: each once, in order, where the log put it`);
      }
      assert.deepEqual(losses, []);
      assert.equal(used[0], expected);
      // The kill and the drain each need a new connection. A poll shows its connection only with its answer, and a
      // reconnect may fall together with the kill, so no more than that is certain.
      await eventually("connections after the kill and the drain", async () => (await report(page)).states >= 3, 60_000);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });
  }

  test("one cursor falls from WebSocket to SSE to long polling while events flow", async () => {
    const channel = `fall.${crypto.randomUUID()}`;
    const page = await follow([channel], () => {
      const { WebSocket, fetch } = globalThis;
      globalThis.blocked = new Set();
      globalThis.WebSocket = class extends WebSocket {
        constructor(url) {
          if (blocked.has("websocket")) throw new DOMException("blocked", "SecurityError");
          super(url);
        }
      };
      globalThis.fetch = (resource, init) =>
        blocked.has("sse") && init?.headers?.accept === "text/event-stream" ? Promise.reject(new TypeError("blocked")) : fetch(resource, init);
    });
    let n = 0;
    for (const [block, next] of [["websocket", "sse"], ["sse", "poll"]]) {
      for (let i = 0; i < 20; i += 1) await server.publish({ channel, data: { n: (n += 1) } });
      await page.evaluate((block) => (blocked.add(block), tide.reconnect()), block);
      for (let i = 0; i < 20; i += 1) await server.publish({ channel, data: { n: (n += 1) } });
      await eventually(next, async () => (await report(page)).used.at(-1) === next, 40_000);
    }
    await eventually("all events", async () => (await report(page)).got.length >= n);
    const { got, losses, used } = await report(page);
    assert.deepEqual(got.map((event) => event.n), Array.from({ length: n }, (_, index) => index + 1));
    assert.deepEqual([losses, used], [[], ["websocket", "sse", "poll"]]);
    await page.context().close();
  });

  test("a page load resumes from a kept cursor", async () => {
    const channel = `kept.${crypto.randomUUID()}`;
    const page = await follow([channel]);
    await server.publish({ channel, data: { n: 1 } });
    await eventually("the first event", async () => (await report(page)).got.length === 1);
    const cursor = await page.evaluate(() => (tide.close(), tide.cursor));
    for (let n = 2; n <= 10; n += 1) await server.publish({ channel, data: { n } });
    await page.context().close();
    const second = await follow([channel], undefined, { cursor, transports: ["sse"] });
    await eventually("the rest", async () => (await report(second)).got.length >= 9);
    assert.deepEqual((await report(second)).got.map(({ n }) => n), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    await second.context().close();
  });

  for (const transport of ["websocket", "sse"]) {
    test(`what a page says over ${transport} is acked by the log`, async () => {
      const channel = `say.${crypto.randomUUID()}`;
      const page = await follow([channel], undefined, { transports: [transport] });
      const acks = await page.evaluate(async (channel) => [await tide.send({ text: "one" }, { channel }), await tide.send("two", { channel })], channel);
      for (const ack of acks) assert.match(ack.pos, /^[0-9a-f]{16}\.\d+\.\d+$/);
      assert.notEqual(acks[0].pos, acks[1].pos);
      const refused = await page.evaluate(() => tide.send("x", { channel: "user:somebody" }).catch((error) => ({ kind: error.problem?.title, indeterminate: error.indeterminate })));
      assert.deepEqual(refused, { kind: "forbidden", indeterminate: false });
      await page.context().close();
    });
  }
});
