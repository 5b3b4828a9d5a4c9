// HTTP/2 over TLS in a real browser: more tabs than HTTP/1.1 has connections for, and WebSockets on the same socket (RFC 8441).

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch } from "../support/browser.mjs";
import { eventually } from "../support/eventually.mjs";
import { Server } from "../support/tidegate.mjs";

const TABS = 10; // Over HTTP/1.1 a browser opens six connections to a host, in all tabs together.

/** What each tab's own EventSource got: in a global, where the test finds it. */
function follow(url) {
  globalThis.got = [];
  globalThis.opened = false;
  const source = (globalThis.source = new EventSource(url));
  source.addEventListener("tidegate.state", () => (globalThis.opened = true));
  source.onmessage = ({ data }) => globalThis.got.push(JSON.parse(data).data);
}

describe("HTTP/2", { timeout: 180_000 }, () => {
  let server, browser, context;
  before(async () => {
    server = await Server.start({}, { tls: true });
    browser = await launch(["--ignore-certificate-errors"]); // `dev` signs its own.
    context = await browser.newContext();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** A tab of the server's origin. `tab.responses` and `tab.websockets` are what the browser says of the network. */
  async function open() {
    const tab = await context.newPage();
    const devtools = await context.newCDPSession(tab);
    tab.responses = [];
    tab.websockets = [];
    devtools.on("Network.responseReceived", ({ response }) => tab.responses.push(response));
    devtools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => tab.websockets.push(response));
    await devtools.send("Network.enable");
    await tab.goto(`${server.origin}/tidegate.js`); // Any document of the origin: its script does not run.
    return tab;
  }

  const eventsResponse = (tab) => tab.responses.find(({ url }) => url.includes("/v1/events"));

  test("ten tabs with an EventSource each receive, over one connection", async () => {
    const channel = `tabs.${crypto.randomUUID()}`;
    const tabs = [];
    for (let n = 0; n < TABS; n += 1) {
      const tab = await open();
      assert.equal(await tab.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h2");
      await tab.evaluate(follow, `${server.origin}/v1/events?channel=${channel}`);
      tabs.push(tab);
    }
    for (const tab of tabs) await eventually("the stream is open", () => tab.evaluate(() => globalThis.opened));
    for (const n of [1, 2, 3]) await server.publish({ channel, data: { n } });
    for (const tab of tabs) {
      await eventually("three events", () => tab.evaluate(() => globalThis.got.length >= 3));
      assert.deepEqual(await tab.evaluate(() => globalThis.got), [{ n: 1 }, { n: 2 }, { n: 3 }]);
    }
    const responses = tabs.map(eventsResponse);
    assert.deepEqual(responses.map(({ protocol }) => protocol), Array(TABS).fill("h2"));
    assert.equal(new Set(responses.map(({ connectionId }) => connectionId)).size, 1, "one socket serves them all");
    assert.ok((await server.metric('tidegate_gateway_connections{transport="sse"}')) >= TABS);

    // A tab that is closed ends its stream and nobody else's.
    await tabs.pop().close();
    await eventually("nine streams", async () => (await server.metric('tidegate_gateway_connections{transport="sse"}')) === TABS - 1);
    await server.publish({ channel, data: { n: 4 } });
    for (const tab of tabs) {
      await eventually("the fourth event", () => tab.evaluate(() => globalThis.got.length === 4));
      await tab.close();
    }
  });

  test("a WebSocket is a stream of the same connection", async () => {
    const channel = `ws.${crypto.randomUUID()}`;
    const tab = await open();
    const sockets = await server.metric('tidegate_gateway_tls_handshakes_total{result="ok"}');
    await tab.evaluate(([origin, channel]) => {
      globalThis.got = [];
      const socket = (globalThis.socket = new WebSocket(`${origin.replace("https", "wss")}/v1/events?channel=${channel}`));
      socket.onmessage = ({ data }) => globalThis.got.push(JSON.parse(data));
      socket.onclose = ({ code, wasClean }) => (globalThis.ended = { code, wasClean });
    }, [server.origin, channel]);
    await eventually("its first state", () => tab.evaluate(() => globalThis.got.some(({ type }) => type === "state")));
    assert.deepEqual(tab.websockets.map(({ status }) => status), [200], "not 101: there is nothing to upgrade");
    assert.equal(await server.metric('tidegate_gateway_tls_handshakes_total{result="ok"}'), sockets, "no further socket");

    const text = "x".repeat(50_000);
    await server.publish({ channel, data: { text } });
    await eventually("the event", () => tab.evaluate((text) => globalThis.got.some(({ data }) => data?.text === text), text));
    await tab.evaluate((text) => globalThis.socket.send(JSON.stringify({ ref: "r", data: { text } })), text);
    await eventually("the ack", () => tab.evaluate(() => globalThis.got.some(({ type, ref }) => type === "ack" && ref === "r")));
    await tab.evaluate(() => globalThis.socket.close(1000));
    await eventually("a clean end", () => tab.evaluate(() => globalThis.ended));
    assert.deepEqual(await tab.evaluate(() => globalThis.ended), { code: 1000, wasClean: true });
    await tab.close();
  });
});
