// The saved sessions. Which one is open stands in the address, so that a reload keeps it.

import { get } from "/page/api.js";
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

export async function list() {
  const { data } = await get("/nazx/sessions");
  const open = currentName();
  redraw(byId("sessions"), data.map((session) => make("li", {}, link(session, open))));
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
