import { setTimeout as pause } from "node:timers/promises";

/** Waits until `condition` holds, and says what it waited for when it does not in time. Returns what it returned. */
export async function eventually(what, condition, deadlineMs = 10_000) {
  const until = performance.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > until) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await pause(5);
  }
}
