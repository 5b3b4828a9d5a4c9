// Headless Chromium, and pages that fail their test when anything in them fails.

import { createServer } from "node:http";
import { chromium } from "playwright-core";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

export function launch(further = []) {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", ...further];
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args });
}

/** A page in a context of its own. `page.problems` are its uncaught errors and policy violations. */
export async function newPage(browser, { init } = {}) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.problems = [];
  page.requested = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => {
    if (/Content.Security.Policy/i.test(message.text())) page.problems.push(message.text());
  });
  page.on("request", (request) => page.requested.push(request.url()));
  if (init) await page.addInitScript(init);
  return page;
}

/** A site of another origin than the server's, with nothing but a blank page. */
export async function startSite() {
  const site = createServer((_, response) => response.setHeader("content-type", "text/html").end("<title>blank</title>"));
  await new Promise((resolve) => site.listen(0, resolve));
  const { port } = site.address();
  return { urlAt: (host) => `http://${host}:${port}/`, origin: (host) => `http://${host}:${port}`, stop: () => site.close() };
}
