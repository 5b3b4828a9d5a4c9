// The page allows its own inline script and style by their hashes and nothing else. After an edit:
// `UPDATE=1 node --test test/csp.test.mjs` writes the new hashes.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";

const PAGE = new URL("../../../gateway/web/index.html", import.meta.url);
const SIZE_LIMIT_BYTES = 60_000;

const hashOf = (html, pattern) => `sha256-${createHash("sha256").update(pattern.exec(html)[1]).digest("base64")}`;

test("the page's policy names the hashes of its script and style", () => {
  const html = readFileSync(PAGE, "utf8");
  const expected = html
    .replace(/(script-src 'self') 'sha256-[^']*'/, `$1 '${hashOf(html, /<script type="module">([^]*?)<\/script>/)}'`)
    .replace(/(style-src) 'sha256-[^']*'/, `$1 '${hashOf(html, /<style>([^]*?)<\/style>/)}'`);
  if (process.env.UPDATE) writeFileSync(PAGE, expected);
  else assert.equal(html, expected, "run it once with UPDATE=1");
});

test("the page and the client are small and load nothing from elsewhere", () => {
  const files = ["index.html", "tidegate.js"].map((name) => readFileSync(new URL(name, PAGE), "utf8"));
  const bytes = files.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  assert.ok(bytes <= SIZE_LIMIT_BYTES, `${bytes} bytes`);
  for (const text of files) assert.doesNotMatch(text, /(src|href)="(https?:)?\/\/|\son[a-z]+="/);
});
