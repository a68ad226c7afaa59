// Memory in use, and how much of the window the conversation takes: asked for while the page shows.

import { get } from "/page/api.js";
import { byId } from "/page/elements.js";

const EVERY = 2000; // milliseconds
const UNITS = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];

function size(bytes) {
  const [unit, name] = UNITS.find(([least]) => bytes >= least) ?? [1, "bytes"];
  const value = bytes / unit;
  return `${value.toFixed(value < 9.95 && unit > 1 ? 1 : 0)} ${name}`;
}

export async function look() {
  const { memory, context, queue } = await get("/nazx/gauge");
  const share = memory.limit ? memory.used / memory.limit : 0;
  const kind = memory.kind === "VRAM" ? "VRAM" : "Memory";
  byId("memory").value = share;
  byId("memory-text").textContent = `${kind} ${size(memory.used)} of ${size(memory.limit)}`;
  const parts = [];
  if (context?.window) {
    const used = context.window_used.toLocaleString("en");
    parts.push(`window ${used} of ${context.window.toLocaleString("en")} tokens`);
  }
  if (queue.waiting > 0) parts.push(`${queue.waiting} waiting`);
  byId("context-text").textContent = parts.join(" · ");
  byId("gauge").hidden = false;
}

export function keepLooking() {
  const again = async () => {
    if (!document.hidden) await look().catch(() => { byId("gauge").hidden = true; });
    setTimeout(again, EVERY);
  };
  again();
}
