// The real server: started, published to, drained, killed and started again on the same ports and data.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./eventually.mjs";

const BINARY = process.env.TIDEGATE_BIN;

export class Server {
  #env;
  #tls;
  #child;
  #ports = { public: 0, api: 0, admin: 0 };
  stderr = "";

  /**
   * @param {Record<string, string>} [env] settings as `TIDEGATE__SECTION__KEY`
   * @param {{ tls?: boolean }} [options] with `tls` the public port speaks TLS with a certificate of its own making
   */
  static async start(env = {}, { tls = false } = {}) {
    if (!BINARY) throw new Error("set TIDEGATE_BIN to a tidegate binary");
    const server = new Server();
    server.#env = env;
    server.#tls = tls;
    server.directory = await mkdtemp(join(tmpdir(), "tidegate-browser-"));
    await server.run();
    return server;
  }

  /** Starts the process; again on the same ports and data. */
  async run() {
    const portsFile = join(this.directory, "ports.json");
    await rm(portsFile, { force: true });
    const at = (name) => ["--" + name, `127.0.0.1:${this.#ports[name]}`];
    const args = ["dev", ...at("public"), ...at("api"), ...at("admin"), "--data-dir", join(this.directory, "data"), "--ports-file", portsFile, ...(this.#tls ? ["--tls"] : [])];
    const child = spawn(BINARY, args, { env: { ...process.env, ...this.#env }, stdio: ["ignore", "ignore", "pipe"] });
    child.exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
    child.stderr.on("data", (text) => (this.stderr = (this.stderr + text).slice(-20_000)));
    this.#child = child;
    try {
      this.#ports = await eventually("the server's ports", () => child.exitCode === null ? readPorts(portsFile) : exitedEarly(child), 30_000);
      await eventually("the server to be ready", async () => (await fetch(`http://127.0.0.1:${this.#ports.admin}/readyz`).catch(() => ({}))).ok, 30_000);
    } catch (error) {
      throw new Error(`${error.message}\n${this.stderr}`);
    }
  }

  get origin() {
    return `${this.#tls ? "https" : "http"}://127.0.0.1:${this.#ports.public}`;
  }

  /** The value of one metric, named as it is printed: with its labels. 0 where there is none yet. */
  async metric(name) {
    const text = await (await fetch(`http://127.0.0.1:${this.#ports.admin}/metrics`)).text();
    const line = text.split("\n").find((line) => line.startsWith(`${name} `));
    return line ? Number(line.slice(name.length + 1)) : 0;
  }

  /** SIGTERM, and its whole drain. Fails unless it exits with 0. */
  async drain() {
    this.#child.kill("SIGTERM");
    const { code, signal } = await this.#child.exited;
    if (code !== 0) throw new Error(`the drain ended with ${code ?? signal}\n${this.stderr}`);
  }

  async kill() {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  async stop() {
    await this.kill();
    await rm(this.directory, { recursive: true, force: true });
  }

  /**
   * Publishes until it is acked: while the process is down, or when the outcome is unknown, again with the same key.
   * So what returns is in the log exactly once.
   */
  async publish(body, deadlineMs = 30_000) {
    const text = JSON.stringify({ idempotency_key: crypto.randomUUID(), ...body });
    return eventually("an acked publish", async () => {
      const response = await fetch(`http://127.0.0.1:${this.#ports.api}/v1/publish`, { method: "POST", body: text }).catch(() => undefined);
      if (!response || response.status >= 500) return undefined;
      const answer = await response.json();
      if (!response.ok) throw new Error(`publish refused: ${JSON.stringify(answer)}`);
      return answer;
    }, deadlineMs);
  }
}

async function readPorts(path) {
  const text = await readFile(path, "utf8").catch(() => "");
  try {
    const ports = JSON.parse(text);
    return { public: portOf(ports.public), api: portOf(ports.api), admin: portOf(ports.admin) };
  } catch {
    return undefined; // Not there yet, or not whole.
  }
}

const portOf = (value) => (typeof value === "number" ? value : Number(/:(\d+)$/.exec(value)[1]));

function exitedEarly(child) {
  throw new Error(`the server exited with ${child.exitCode}`);
}
