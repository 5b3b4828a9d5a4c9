// The vectors that need no server, against a second implementation written from the documents; and the form of the rest.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

const read = (name) => JSON.parse(readFileSync(new URL(`../../../proto/vectors/${name}.json`, import.meta.url), "utf8"));

test("murmur2 and partitions", () => {
  for (const { key, murmur2: expected, partitions } of read("partitions").cases) {
    const hash = murmur2(Buffer.from(key));
    assert.equal(hash, expected, key);
    for (const [count, number] of Object.entries(partitions)) assert.equal((hash & 0x7fffffff) % count, number, key);
  }
  for (const { channel, topic } of read("partitions").topics) {
    assert.equal(channel.startsWith("user:") ? "inbox" : "events", topic, channel);
  }
});

test("the channel grammar", () => {
  const { valid, reserved, invalid } = read("channels");
  const grammar = /^[A-Za-z0-9\-_.~:/@+=,!$&*#'()]{1,255}$/;
  for (const { name, namespace } of valid) {
    assert.match(name, grammar);
    assert.equal(name.includes(":") ? name.slice(0, name.indexOf(":")) : "", namespace);
  }
  for (const name of reserved) assert.match(name, grammar);
  for (const { name, error, at } of invalid) {
    assert.doesNotMatch(name, grammar);
    const bytes = Buffer.from(name);
    const bad = bytes.findIndex((byte) => byte > 126 || !grammar.test(String.fromCharCode(byte)));
    const expected = bytes.length === 0 ? "empty" : bytes.length > 255 ? "too_long" : "bad_byte";
    assert.deepEqual([error, at], [expected, expected === "bad_byte" ? bad : undefined], JSON.stringify(name));
  }
});

test("positions", () => {
  const form = /^([0-9a-f]{16})\.([0-9]+)\.([0-9]+)$/;
  const { valid, invalid, order } = read("positions");
  for (const { pos, epoch, partition, offset } of valid) {
    const [, ...parts] = form.exec(pos);
    assert.deepEqual([parts[0], Number(parts[1]), Number(parts[2])], [epoch, partition, offset]);
  }
  for (const pos of invalid) assert.doesNotMatch(pos, form);
  for (const { before, after } of order) assert.ok(Number(form.exec(before)[3]) < Number(form.exec(after)[3]));
});

describe("objects", () => {
  for (const example of read("objects").cases) {
    test(example.name, () => {
      const { ws, ndjson, sse, json, id } = example;
      const kind = ["event", "state", "gap", "close", "ping", "ack", "nack", "poll", "retry"].find((name) => name in example);
      if (kind === "poll") return assert.deepEqual(JSON.parse(json), { ...example.poll, events: example.poll.events.map(eventOf) });
      const { ref, data_text: text, ...members } = example[kind];
      const expected = { type: kind, ...members };
      if (ref) expected.ref = JSON.parse(ref);
      if (text) expected.data = JSON.parse(text);
      const withId = id && kind !== "state" ? { ...expected, id } : expected;
      if (ws) assert.deepEqual(JSON.parse(ws), withId);
      if (ndjson) {
        assert.ok(ndjson.endsWith("\n") && ndjson.indexOf("\n") === ndjson.length - 1, "one line");
        assert.deepEqual(JSON.parse(ndjson), withId);
      }
      if (sse) {
        const block = parseBlock(sse);
        const name = kind === "event" ? members.event : `tidegate.${kind}`;
        assert.equal(block.id, id);
        if (block.data) assert.deepEqual([block.event ?? "message", JSON.parse(block.data)], [name, expected]);
        else assert.ok(kind === "ping" || kind === "retry");
      }
    });
  }
});

test("cases have names of their own and known members", () => {
  const phase = ["publish", "request", "live", "expect"];
  const expect = ["state", "events", "events_end_with", "cursor", "repeats"];
  const members = {
    events: ["name", "why", "phases"],
    state: ["name", "why", "phases"],
    cursors: ["name", "why", "cursor", "cursor_hex", "only"],
    refusals: ["name", "why", "query", "channels", "headers", "only", "expect"],
    messages: ["name", "why", "message", "message_text", "follows", "only", "expect"],
    publish: ["name", "why", "body", "body_text", "expect"],
    objects: undefined,
  };
  for (const [file, known] of Object.entries(members)) {
    const { about, cases } = read(file);
    assert.ok(about);
    assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length, file);
    for (const one of known ? cases : []) {
      onlyKnown(one, known, `${file}: ${one.name}`);
      for (const part of one.phases ?? []) {
        onlyKnown(part, phase, one.name);
        onlyKnown(part.expect, expect, one.name);
      }
    }
  }
});

function onlyKnown(object, known, where) {
  assert.deepEqual(Object.keys(object).filter((name) => !known.includes(name)), [], where);
}

function eventOf({ data_text: text, ...members }) {
  return { type: "event", ...members, ...(text && { data: JSON.parse(text) }) };
}

/** One block, by the rules of the HTML standard. */
function parseBlock(block) {
  assert.ok(block.endsWith("\n\n"));
  const fields = {};
  for (const line of block.slice(0, -2).split(/\r\n|\r|\n/)) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const name = line.slice(0, colon);
    fields[name] = name === "data" && "data" in fields ? `${fields.data}\n${value}` : value;
  }
  return fields;
}

function murmur2(data) {
  const M = 0x5bd1e995;
  let hash = 0x9747b28c ^ data.length;
  const whole = data.length & ~3;
  for (let at = 0; at < whole; at += 4) {
    let word = Math.imul(data.readInt32LE(at), M);
    word = Math.imul(word ^ (word >>> 24), M);
    hash = Math.imul(hash, M) ^ word;
  }
  for (let at = data.length - 1; at >= whole; at -= 1) hash ^= data[at] << (8 * (at - whole));
  if (data.length > whole) hash = Math.imul(hash, M);
  hash = Math.imul(hash ^ (hash >>> 13), M);
  return (hash ^ (hash >>> 15)) | 0;
}
