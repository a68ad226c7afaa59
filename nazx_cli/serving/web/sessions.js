// The saved sessions. Which one is open stands in the address, so that a reload keeps it.

import { get, remove } from "/page/api.js";
import { byId, counted, make, redraw } from "/page/elements.js";

const MARK = "#session=";

export function currentName() {
  const { hash } = location;
  if (!hash.startsWith(MARK)) return null;
  try {
    return decodeURIComponent(hash.slice(MARK.length)) || null;
  } catch {
    return null; // no name that this page wrote
  }
}

export const addressOf = (name) => MARK + encodeURIComponent(name);

// After the minute, and not what another tab would choose in it.
export function freshName() {
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const some = Math.random().toString(36).slice(2, 5).padEnd(3, "0");
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}-${some}`;
}

export const pathOf = (name) => `/nazx/sessions/${encodeURIComponent(name)}`;

export async function list() {
  const { data } = await get("/nazx/sessions");
  const open = currentName();
  redraw(byId("sessions"), data.map((session) => make("li", {}, link(session, open), make("button", {
    class: "plain", type: "button", "aria-label": `Delete session ${session.name}`,
    onclick: () => ask(session),
  }, "×"))));
}

// Calls `done` with the name of each session that is deleted, once the person has said so.
export function onDelete(done, fail) {
  byId("delete").addEventListener("close", async () => {
    const { returnValue: name } = byId("delete");
    if (name === "") return;
    try {
      await remove(pathOf(name));
      await done(name);
    } catch (error) {
      fail(error);
    }
  });
}

function ask({ name, turns }) {
  byId("delete-name").textContent = name;
  byId("delete-about").textContent = `${counted(turns, "turn")}. It cannot be had back.`;
  byId("delete-yes").value = name;
  byId("delete").returnValue = ""; // what Escape leaves
  byId("delete").showModal();
}

function link(session, open) {
  const facts = session.damaged
    ? "damaged; next: nazx sessions repair"
    : [counted(session.turns, "turn"), counted(session.documents, "document")].join(", ");
  return make("a", {
    href: addressOf(session.name),
    "aria-current": session.name === open ? "page" : null,
  },
    make("span", { class: "name" }, session.name),
    make("span", { class: "quiet" }, session.open ? `${facts}, open elsewhere` : facts));
}
