// A stand-in for a gateway that fails on command: what a real one does too rarely, or never, to test a client with.
// One in-memory log of two partitions, the objects of `/v1/events`, and a `fault` for each connection.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";

const PARTITIONS = 2;
const WEB = new URL("../../../gateway/web/", import.meta.url);

/**
 * @typedef {object} Fault what to do with one connection; the default is to serve it
 * @property {"drop"|"hang"} [accept] end the socket at once, or never answer
 * @property {number} [status] refuse with this HTTP status and a problem object
 * @property {object} [close] open, then send this `close` object and end
 * @property {number} [retryMs] goes into the problem
 * @property {number} [rewind] resume so many events too early: repeats
 * @property {number} [cutAfterBytes] end a stream after so many bytes, wherever that is
 * @property {number} [splitBytes] write streams in pieces of so many bytes
 * @property {{channel: string, reason: string}[]} [lost] tell this of a resume
 */
export class FakeGateway {
  /** @type {(request: import("node:http").IncomingMessage, transport: string, url: URL) => Fault|undefined} */
  fault = () => undefined;
  /** @type {{transport: string, url: URL, authorization?: string}[]} every connection that was asked for */
  requests = [];
  upstream = [];
  #epoch = "00000000000000aa";
  #logs = Array.from({ length: PARTITIONS }, () => []);
  #followers = new Set();
  #sockets = new Set();

  async listen(port = 0) {
    this.server = createServer((request, response) => this.#request(request, response));
    this.server.on("upgrade", (request, socket) => this.#upgrade(request, socket));
    this.server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket)).on("error", () => {});
    });
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  /** Ends every connection as a crash would. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  publish({ channel, event = "message", data, ephemeral = false }) {
    const partition = createHash("md5").update(channel).digest()[0] % PARTITIONS;
    const log = this.#logs[partition];
    const row = { type: "event", channel, event, data, time: Date.now() };
    if (!ephemeral) {
      row.pos = `${this.#epoch}.${partition}.${log.length}`;
      log.push(row);
    }
    for (const follower of [...this.#followers]) follower(row, partition);
    return { pos: row.pos };
  }

  // ---- requests ----

  #request(request, response) {
    const url = new URL(request.url, "http://fake");
    const serve = { "/": ["index.html", "text/html"], "/tidegate.js": ["tidegate.js", "text/javascript"] }[url.pathname];
    if (serve) return void response.setHeader("content-type", serve[1]).end(readFileSync(new URL(serve[0], WEB)));
    if (request.method === "POST") return void this.#posted(url, request, response);
    const accept = request.headers.accept ?? "";
    const transport = accept.includes("event-stream") ? "sse" : accept.includes("ndjson") ? "ndjson" : "poll";
    const fault = this.#arrived(request, transport, url);
    if (fault.accept) return void (fault.accept === "drop" && request.socket.destroy());
    if (fault.status) return refuse(response, fault);
    if (transport === "poll") return this.#poll(request, response, url, fault);
    response.writeHead(200, { "content-type": accept, "cache-control": "no-store" });
    let left = fault.cutAfterBytes ?? Infinity;
    const write = (text) => {
      const bytes = Buffer.from(text).subarray(0, left);
      for (let at = 0; at < bytes.length; at += fault.splitBytes ?? bytes.length) {
        response.write(bytes.subarray(at, at + (fault.splitBytes ?? bytes.length)));
      }
      left -= bytes.length;
      if (left <= 0) setImmediate(() => request.socket.destroy());
    };
    const send = transport === "sse" ? (object, id) => write(sseBlock(object, id)) : (object, id) => write(`${JSON.stringify({ ...object, id })}\n`);
    if (transport === "sse") write("retry: 3000\n\n");
    const unfollow = this.#follow(url, fault, send, () => response.end());
    response.on("close", unfollow);
  }

  #arrived(request, transport, url) {
    this.requests.push({ transport, url, authorization: request.headers.authorization });
    return this.fault(request, transport, url) ?? {};
  }

  #posted(url, request, response) {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
      const body = JSON.parse(Buffer.concat(chunks).toString());
      const fault = this.#arrived(request, "post", url);
      if (fault.accept) return void (fault.accept === "drop" && request.socket.destroy());
      if (fault.status) return refuse(response, fault);
      const answer = url.pathname === "/demo/publish" ? this.publish(body) : this.#said(body);
      response.setHeader("content-type", "application/json").end(JSON.stringify(answer));
    });
  }

  #said(message) {
    this.upstream.push(message);
    return { type: "ack", ref: message.ref, seq: this.upstream.length, pos: `${this.#epoch}.0.${this.upstream.length}` };
  }

  #poll(request, response, url, fault) {
    const events = [];
    let state;
    const waitMs = Number.parseFloat(url.searchParams.get("wait") ?? "0") * 1000;
    let cursor;
    const answer = () => {
      unfollow();
      clearTimeout(timer);
      const { recovered, lost, fresh } = state;
      response.setHeader("content-type", "application/json").end(JSON.stringify({ events, cursor, recovered, lost, fresh }));
    };
    const timer = setTimeout(answer, waitMs);
    let isReplay = true;
    const unfollow = this.#follow(url, fault, (object, id) => {
      if (object.type === "state") state = object;
      else events.push(object);
      cursor = id ?? object.cursor ?? cursor;
      if (events.length > 0 && !isReplay) answer();
    });
    isReplay = false;
    response.once("close", () => (clearTimeout(timer), unfollow()));
    if (events.length > 0) answer();
  }

  #upgrade(request, socket) {
    const url = new URL(request.url, "http://fake");
    const fault = this.#arrived(request, "websocket", url);
    if (fault.accept === "hang") return;
    if (fault.accept === "drop") return void socket.destroy();
    if (fault.status) return void socket.end(`HTTP/1.1 ${fault.status} Refused\r\ncontent-length: 0\r\n\r\n`);
    const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    const send = (object, id) => socket.write(frame(1, Buffer.from(JSON.stringify({ ...object, id }))));
    const close = (code = 1000) => socket.end(frame(8, Buffer.from([code >> 8, code & 255])));
    const unfollow = this.#follow(url, fault, send, close);
    socket.on("close", unfollow);
    readFrames(socket, (opcode, payload) => {
      if (opcode === 8) close();
      if (opcode !== 1) return;
      const fault = this.fault(request, "message", url) ?? {};
      if (fault.accept === "hang") return;
      if (fault.accept === "drop") return void socket.destroy();
      const message = JSON.parse(payload.toString());
      if (fault.status) send({ type: "nack", ref: message.ref, seq: 1, error: problemOf(fault) });
      else send(this.#said(message));
    });
  }

  /** Sends the state, what the cursor has not seen, and then all that comes. Returns how to stop. */
  #follow(url, fault, send, end) {
    const channels = url.searchParams.getAll("channel");
    const token = url.searchParams.get("cursor");
    const next = token ? JSON.parse(Buffer.from(token, "base64url")) : this.#logs.map((log) => log.length);
    const cursor = () => Buffer.from(JSON.stringify(next)).toString("base64url");
    const told = { recovered: token && !fault.lost ? channels : [], lost: fault.lost ?? [], fresh: token ? [] : channels };
    const state = { type: "state", cursor: cursor(), ...told };
    if (fault.rewind) next.forEach((_, partition) => (next[partition] = Math.max(0, next[partition] - fault.rewind)));
    send(state, undefined);
    if (fault.close) {
      send({ type: "close", ...fault.close }, undefined);
      end(fault.close.code);
      return () => {};
    }
    const follower = (row, partition) => {
      const number = row.pos && Number(row.pos.split(".")[2]);
      if (row.pos) next[partition] = number + 1;
      if (channels.includes(row.channel)) send(row, row.pos && cursor());
    };
    this.#logs.forEach((log, partition) => log.slice(next[partition]).forEach((row) => follower(row, partition)));
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }
}

const problemOf = ({ status, title = "refused", retryMs }) => ({ type: `/errors#${title}`, title, status, detail: `refused with ${status}`, retry_ms: retryMs });

function refuse(response, fault) {
  response.writeHead(fault.status, { "content-type": "application/problem+json" }).end(JSON.stringify(problemOf(fault)));
}

function sseBlock(object, id) {
  const name = object.type === "event" ? object.event : `tidegate.${object.type}`;
  return `${name === "message" ? "" : `event: ${name}\n`}${id || object.cursor ? `id: ${id ?? object.cursor}\n` : ""}data: ${JSON.stringify(object)}\n\n`;
}

function frame(opcode, payload) {
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, payload.length]) : Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 255]);
  return Buffer.concat([head, payload]);
}

/** Reads masked frames of less than 64 KiB: all that a test sends. */
function readFrames(socket, take) {
  let rest = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const short = rest.length < 2 ? 0 : rest[1] & 127;
      const head = short === 126 ? 8 : 6;
      const length = short === 126 && rest.length >= 4 ? rest.readUInt16BE(2) : short;
      if (rest.length < head + length || rest.length < 6) return;
      const mask = rest.subarray(head - 4, head);
      take(rest[0] & 15, Buffer.from(rest.subarray(head, head + length).map((byte, at) => byte ^ mask[at % 4])));
      rest = rest.subarray(head + length);
    }
  });
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const gateway = await new FakeGateway().listen(Number(process.argv[2] ?? 8000));
  console.log(gateway.url);
}
