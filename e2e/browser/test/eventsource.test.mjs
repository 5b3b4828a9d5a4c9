// The browser's own EventSource, which knows nothing of us: it must come back by itself, with Last-Event-ID, and miss nothing.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, newPage, startSite } from "../support/browser.mjs";
import { eventually } from "../support/eventually.mjs";
import { Server } from "../support/tidegate.mjs";

const LIMIT = 6;

describe("EventSource", { timeout: 180_000 }, () => {
  let server, browser, site;
  before(async () => {
    server = await Server.start({ TIDEGATE__LIMITS__CONNECTIONS: String(LIMIT), TIDEGATE__LIMITS__SSE_RETRY: "300ms", TIDEGATE__DRAIN__WINDOW: "500ms", TIDEGATE__DRAIN__RETRY_WINDOW: "1s" });
    browser = await launch();
    site = await startSite();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    site?.stop();
  });

  async function open(channel, query = "") {
    const page = await newPage(browser);
    await page.goto(site.urlAt("127.0.0.1")); // Not the server's own: it holds no connection to a full server.
    await page.evaluate(([origin, channel, query]) => {
      const source = (globalThis.source = new EventSource(`${origin}/v1/events?channel=${channel}${query}`));
      globalThis.log = { got: [], states: [], closes: [], opens: 0, errors: 0, ids: [] };
      source.onopen = () => (log.opens += 1);
      source.onerror = () => (log.errors += 1);
      source.onmessage = ({ data, lastEventId }) => {
        log.got.push(JSON.parse(data));
        log.ids.push(lastEventId);
      };
      source.addEventListener("tidegate.state", ({ data }) => log.states.push(JSON.parse(data)));
      source.addEventListener("tidegate.close", ({ data }) => log.closes.push(JSON.parse(data)));
    }, [server.origin, channel, query]);
    return page;
  }

  const log = (page) => page.evaluate(() => ({ ...globalThis.log, readyState: source.readyState }));
  const isOpen = (page, count = 1) => eventually(`${count} states`, async () => (await log(page)).states.length >= count, 30_000);

  /** Publishes `count` events and checks that the source gets each once or, right after a resume, again; and none is missing. */
  async function nothingLost(page, channel, from, count) {
    const acked = [];
    for (let n = from; n < from + count; n += 1) acked.push((await server.publish({ channel, data: { n } })).pos);
    await eventually(`the event ${from + count - 1}`, async () => (await log(page)).got.some(({ pos }) => pos === acked.at(-1)), 30_000);
    const { got, states } = await log(page);
    const distinct = [...new Set(got.map(({ pos }) => pos))];
    assert.deepEqual(distinct.slice(-count), acked);
    assert.deepEqual([...new Set(got.map(({ data }) => data.n))], Array.from({ length: from + count }, (_, n) => n));
    assert.deepEqual(states.flatMap(({ lost }) => lost), []);
  }

  test("returns by itself from a full server", async () => {
    const channel = `full.${crypto.randomUUID()}`;
    const others = await fill();
    const page = await open(channel);
    await eventually("two refusals", async () => (await log(page)).closes.length >= 2, 30_000);
    const refused = await log(page);
    assert.deepEqual([refused.closes[0].code, refused.closes[0].reason], [1013, "overloaded"]);
    assert.ok(refused.closes[0].retry_ms > 0);
    assert.notEqual(refused.readyState, 2, "it has not given up");
    for (const other of others) other.abort();
    await isOpen(page);
    await nothingLost(page, channel, 0, 10);
    await page.context().close();
  });

  test("returns by itself after a drain, with what it missed", async () => {
    const channel = `drain.${crypto.randomUUID()}`;
    const page = await open(channel);
    await isOpen(page);
    await nothingLost(page, channel, 0, 10);
    await server.drain();
    const { closes } = await log(page);
    assert.deepEqual([closes[0]?.code, closes[0]?.reason], [1012, "draining"]);
    assert.ok(closes[0].retry_ms <= 1_000, "told to come back within the window");
    await server.run();
    await nothingLost(page, channel, 10, 20);
    await isOpen(page, 2);
    const { states } = await log(page);
    assert.ok(states.at(-1).recovered.includes(channel), "Last-Event-ID was sent and understood");
    await page.context().close();
  });

  test("returns by itself after a kill, with what it missed", async () => {
    const channel = `kill.${crypto.randomUUID()}`;
    const page = await open(channel);
    await isOpen(page);
    await nothingLost(page, channel, 0, 10);
    await server.kill();
    await server.run();
    await nothingLost(page, channel, 10, 20);
    await isOpen(page, 2);
    const { states, closes } = await log(page);
    assert.ok(states.at(-1).recovered.includes(channel), "Last-Event-ID was sent and understood");
    assert.deepEqual(closes, [], "nobody could say goodbye");
    await page.context().close();
  });

  test("Last-Event-ID beats the cursor of its URL", async () => {
    const channel = `beats.${crypto.randomUUID()}`;
    const answer = await (await fetch(`${server.origin}/v1/events?channel=${channel}`)).json();
    const page = await open(channel, `&cursor=${answer.cursor}`);
    await isOpen(page);
    await nothingLost(page, channel, 0, 10);
    await server.kill();
    await server.run();
    await nothingLost(page, channel, 10, 1);
    const { got } = await log(page);
    assert.ok(got.length <= 12, `${got.length} events: the URL's cursor would have brought the first ten again`);
    await page.context().close();
  });

  test("a reserved channel is final: 403", async () => {
    const page = await open("user:somebody");
    await eventually("the end", async () => (await log(page)).readyState === 2);
    assert.equal((await log(page)).opens, 0);
    await page.context().close();
  });

  /** Opens streams until one more is refused. */
  async function fill() {
    const others = [];
    await eventually("a full server", async () => {
      const abort = new AbortController();
      const request = { headers: { accept: "application/x-ndjson" }, signal: abort.signal };
      const { status } = await fetch(`${server.origin}/v1/events?channel=others`, request);
      if (status !== 200) return true;
      others.push(abort);
      assert.ok(others.length <= LIMIT, "the limit is in force");
      return false;
    });
    return others;
  }
});
