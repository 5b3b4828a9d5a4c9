// Pages of other origins: those on the list connect, all others are refused on every transport.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch, newPage, startSite } from "../support/browser.mjs";
import { eventually } from "../support/eventually.mjs";
import { Server } from "../support/tidegate.mjs";

describe("origins", { timeout: 120_000 }, () => {
  let server, browser, site;
  before(async () => {
    // One site under two names: 127.0.0.1 is on the list, localhost is not.
    site = await startSite();
    server = await Server.start({ TIDEGATE__CORS__ALLOWED_ORIGINS: "http://127.0.0.1:*" });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    site?.stop();
  });

  async function pageOf(host) {
    const page = await newPage(browser);
    await page.goto(site.urlAt(host));
    return page;
  }

  test("a page that is not on the list gets nothing", async () => {
    const page = await pageOf("localhost");
    const url = `${server.origin}/v1/events?channel=a&user=alice`;
    const webSocket = await page.evaluate((url) => new Promise((resolve) => {
      const socket = new WebSocket(url.replace("http", "ws"));
      socket.onopen = () => resolve("open");
      socket.onclose = ({ code }) => resolve(code);
    }), url);
    assert.equal(webSocket, 1006);
    const eventSource = await page.evaluate((url) => new Promise((resolve) => {
      const source = new EventSource(url);
      source.onopen = () => resolve("open");
      source.onerror = () => source.readyState === 2 && resolve("closed for good");
    }), url);
    assert.equal(eventSource, "closed for good");
    const reads = await page.evaluate((url) => Promise.all(["application/json", "application/x-ndjson", "text/event-stream"].map((accept) =>
      fetch(url, { headers: { accept } }).then(({ status }) => status, (error) => error.name))), url);
    assert.deepEqual(reads, ["TypeError", "TypeError", "TypeError"]);
    const said = await page.evaluate((origin) =>
      fetch(`${origin}/v1/messages?user=alice`, { method: "POST", mode: "no-cors", body: '{"channel":"a","data":1}' }).then(({ type }) => type), server.origin);
    assert.equal(said, "opaque"); // Sent without asking first, as forms are; whether it was refused, only the server can tell.
    const refused = await fetch(`${server.origin}/v1/messages?user=alice`, { method: "POST", headers: { origin: site.origin("localhost") }, body: '{"channel":"a","data":1}' });
    assert.equal(refused.status, 403);
    await page.context().close();
  });

  test("a page on the list follows over every transport", async () => {
    const page = await pageOf("127.0.0.1");
    const channel = `listed.${crypto.randomUUID()}`;
    await page.evaluate(async ([origin, channel]) => {
      const { Tidegate } = await import(`${origin}/tidegate.js`);
      globalThis.got = {};
      globalThis.tides = ["websocket", "sse", "ndjson", "poll", "shortpoll"].map((transport) => {
        const tide = new Tidegate({ url: `${origin}/v1/events`, channels: [channel], transports: [transport], token: undefined });
        tide.onstate = () => (got[transport] ??= []);
        tide.onevent = ({ data }) => got[transport].push(data);
        return tide;
      });
    }, [server.origin, channel]);
    await eventually("five open", () => page.evaluate(() => Object.keys(got).length === 5 && tides.every(({ cursor }) => cursor)));
    await server.publish({ channel, data: "hello" });
    await eventually("five events", () => page.evaluate(() => Object.values(got).flat().length === 5));
    const ack = await page.evaluate((channel) => tides[1].send("hi", { channel }), channel);
    assert.equal(ack.type, "ack");
    await page.context().close();
  });
});
