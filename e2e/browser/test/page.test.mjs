// The demonstration page against the real server: five transports, one position, nothing lost.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { launch, newPage } from "../support/browser.mjs";
import { eventually } from "../support/eventually.mjs";
import { Server } from "../support/tidegate.mjs";

const TRANSPORTS = ["websocket", "sse", "ndjson", "poll", "shortpoll"];

describe("the page", { timeout: 300_000 }, () => {
  let server, browser, page;
  before(async () => {
    server = await Server.start();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });
  beforeEach(async () => {
    page = await newPage(browser);
    await page.goto(server.origin);
    await eventually("five live rows", async () => (await page.locator(".pane.live").count()) === 5, 20_000);
  });
  afterEach(async () => {
    const { problems, requested } = page;
    await page.context().close();
    assert.deepEqual(problems, []);
    assert.deepEqual(requested.filter((url) => !url.startsWith(server.origin) && !url.startsWith("data:")), []);
  });

  const pane = (transport) => page.locator(`[data-pane=${transport}]`);
  const dataOf = (transport, name) => pane(transport).getAttribute(`data-${name}`);
  const figure = async (transport, name) => Number((await pane(transport).locator(`.${name} dd`).textContent()).replaceAll(",", ""));

  async function caughtUp(count) {
    await eventually(`${count} events on each row`, async () => {
      const { events, behind } = await page.locator("#proof").evaluate((proof) => ({ ...proof.dataset }));
      return Number(events) === count && behind === "0";
    }, 60_000);
    for (const transport of TRANSPORTS) {
      assert.deepEqual([transport, await figure(transport, "received"), await figure(transport, "lost")], [transport, count, 0]);
    }
    assert.match(await page.locator("#proof").textContent(), new RegExp(`${count} events published, ${count} received on each transport, 0 lost`));
  }

  test("one published event arrives on all five transports with the same position", async () => {
    await page.locator("#one").click();
    await caughtUp(1);
    const acked = /at (\S+)\.$/.exec(await page.locator("#said").textContent())[1];
    for (const transport of TRANSPORTS) assert.equal(await dataOf(transport, "last-pos"), acked, transport);
  });

  test("an event that a backend publishes arrives as well", async () => {
    const { pos } = await server.publish({ channel: "demo", event: "goal", data: { by: 7 } });
    await caughtUp(1);
    for (const transport of TRANSPORTS) {
      assert.equal(await dataOf(transport, "last-pos"), pos);
      assert.match(await pane(transport).locator(".events").textContent(), /goaldemo\{"by":7\}/);
    }
  });

  test("a cut connection resumes with everything it missed", async () => {
    await page.locator("#one").click();
    await caughtUp(1);
    for (const transport of TRANSPORTS) await pane(transport).locator(".toggle").click();
    await eventually("five cut rows", async () => (await page.locator(".pane.cut").count()) === 5);
    for (let n = 0; n < 40; n += 1) await server.publish({ channel: n % 2 ? "demo" : "chat:lobby", data: { n } });
    for (const transport of TRANSPORTS) assert.equal(await figure(transport, "received"), 1);
    for (const transport of TRANSPORTS) await pane(transport).locator(".toggle").click();
    await caughtUp(41);
  });

  test("a cursor moves to any other transport", async () => {
    for (const [index, from] of TRANSPORTS.entries()) {
      await pane(from).locator(".toggle").click();
      await server.publish({ channel: "demo", data: { from } });
      const to = TRANSPORTS[(index + 1) % TRANSPORTS.length];
      await pane(from).locator(".move").selectOption(to);
      await eventually(`${from} on ${to}`, async () => /live, now on/.test(await pane(from).locator(".status").textContent()));
    }
    await caughtUp(5);
  });

  test("a hundred at once", async () => {
    await page.locator("#hundred").click();
    await caughtUp(100);
  });

  test("an ephemeral event shows and is not counted", async () => {
    await page.locator("[name=ephemeral]").check();
    await page.locator("#one").click();
    for (const transport of ["websocket", "sse", "ndjson"]) {
      await eventually(`it on ${transport}`, async () => /ephemeral/.test(await pane(transport).locator(".events").textContent()));
    }
    await page.locator("[name=ephemeral]").uncheck();
    await page.locator("#one").click();
    await caughtUp(1);
  });

  test("kill -9 and a restart lose nothing", async () => {
    await page.locator("#one").click();
    await caughtUp(1);
    await server.kill();
    await server.run();
    for (let n = 0; n < 20; n += 1) await server.publish({ channel: "demo", data: { n } });
    await caughtUp(21);
  });
});
