// The conversation: turns with their sources beside them, and the passage of a source.

import { get } from "/page/api.js";
import { byId, make, placeOf } from "/page/elements.js";

const SHOWN = 3; // sources of a new answer

// A question whose answer is on its way: `add` text, then `end` it.
export class Turn {
  #answer = make("div", { class: "answer", "aria-busy": "true" });
  #beside = make("aside", { class: "sources", "aria-label": "Sources" });
  #note = make("p", { class: "quiet note" });
  #text = make("span");

  constructor(question, passages) {
    this.passages = passages;
    this.#answer.append(this.#text, this.#note);
    this.element = make("article", { class: "turn" },
      make("h3", { class: "question" }, question),
      make("div", { class: "reply" }, this.#answer, this.#beside));
  }

  get text() {
    return this.#text.textContent;
  }

  wait(what) {
    this.#note.textContent = what;
  }

  add(text) {
    if (text === "") return;
    this.#text.append(text);
    this.#note.textContent = "";
  }

  // Of the sources the first `shown` are in sight, the others folded away.
  end(note, sources = [], shown = SHOWN, title = "Sources") {
    this.#answer.setAttribute("aria-busy", "false");
    this.#note.textContent = note;
    if (sources.length === 0) return;
    const items = sources.map((source) => make("li", {}, this.#source(source)));
    this.#beside.replaceChildren(make("h4", {}, title), make("ul", {}, ...items.splice(0, shown)));
    if (items.length > 0) {
      this.#beside.append(make("details", {},
        make("summary", {}, `${items.length} more that ${items.length === 1 ? "was" : "were"} read`),
        make("ul", {}, ...items)));
    }
  }

  // An answer that may be wrong: in a word or two how unsure it is, what else was said, if anything
  // was, and where that stands.
  doubt(how, other) {
    const told = how[0].toUpperCase() + how.slice(1);
    const text = other ? `${told}; or perhaps: ${other.answer}` : told;
    this.#answer.append(make("p", { class: "quiet other" }, text));
    if (!other?.citation) return;
    this.#beside.append(make("h4", {}, "Perhaps"), make("ul", {}, make("li", {}, this.#source(other.citation))));
  }

  #source(source) {
    const quote = make("q", {}, source.quote);
    const where = `${source.filename}, ${placeOf(source)}`;
    if (source.document === null && source.file_id === null) { // said earlier in the conversation
      return make("div", { class: "source" }, make("span", { class: "place" }, where), quote);
    }
    return make("button", { class: "source", type: "button", onclick: () => this.passages.open(source) },
      make("span", { class: "place" }, where), quote);
  }
}

// Shows a source in its document, highlighted; Escape closes it and leads back.
export class Passages {
  #dialog = byId("passage");
  #text = byId("passage-text");

  constructor({ session, fail }) {
    this.session = session; // a function: the name of the session that is open
    this.fail = fail;
    byId("passage-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
  }

  async open(source) {
    const asked = new URLSearchParams({ first_line: source.first_line, quote: source.quote });
    const document = source.document === null
      ? `/nazx/files/${source.file_id}`
      : `/nazx/sessions/${encodeURIComponent(this.session())}/documents/${source.document}`;
    let found;
    try {
      found = await get(`${document}/passage?${asked}`);
    } catch (error) {
      this.fail(error);
      return;
    }
    byId("passage-title").textContent = `${found.filename}, ${placeOf(source)}`;
    const mark = make("mark", {}, found.quote);
    this.#text.replaceChildren(found.begins ? "" : "…\n", found.before, mark, found.after, found.ends ? "" : "\n…");
    this.#dialog.showModal();
    this.#text.focus();
    mark.scrollIntoView({ block: "center" });
  }
}
