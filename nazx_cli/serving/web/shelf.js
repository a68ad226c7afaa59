// The documents that the server itself has (`nazx serve --file`), where they lie in its index or are
// too many to go with a session one by one: read together, or not at all, and listed page by page.

import { get } from "/page/api.js";
import { byId, counted, make } from "/page/elements.js";

const PAGE = 100; // documents listed at a time
const OWN = "nazx"; // their purpose, and what stands for all of them among a question's files

const pageAfter = (id) =>
  get(`/v1/files?purpose=${OWN}&order=asc&limit=${PAGE}${id === null ? "" : `&after=${id}`}`);

export class Shelf {
  #total = 0;
  #list = byId("shelf-list");

  // Gives those that are few and go with a session as others do; keeps the others.
  async recover() {
    const page = await pageAfter(null);
    if (!page.has_more && !page.data.some((file) => file.nazx.indexed)) return page.data;
    this.#total = page.nazx.total;
    byId("shelf-name").textContent = `${counted(this.#total, "document")} of this server`;
    byId("shelf").hidden = false;
    const details = byId("shelf-details");
    details.addEventListener("toggle", () => {
      if (details.open && this.#list.children.length === 0) this.#add(page);
    });
    return [];
  }

  // What goes with a question for them.
  get files() {
    return this.#total > 0 && byId("shelf-read").checked ? [OWN] : [];
  }

  // Whether the session that is opened reads them, until somebody says otherwise.
  read(wanted) {
    byId("shelf-read").checked = wanted;
  }

  #add(page) {
    this.#list.append(...page.data.map((file) => make("li", {},
      make("span", { class: "name", title: file.filename }, file.filename),
      make("span", { class: "quiet" }, counted(file.nazx.tokens, "token")))));
    if (!page.has_more) return;
    const left = this.#total - this.#list.children.length;
    const more = make("button", {
      class: "plain", type: "button",
      onclick: async () => {
        const next = await pageAfter(page.last_id);
        const last = item.previousElementSibling;
        item.remove();
        this.#add(next);
        (this.#list.querySelector("button") ?? last).focus();
      },
    }, `Show more of ${left.toLocaleString("en")} others`);
    const item = make("li", {}, more);
    this.#list.append(item);
  }
}
