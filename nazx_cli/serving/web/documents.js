// The documents of a conversation: those that its session holds, and those that come with the next
// question. These are on the server's shelf until a session has them.

import { Problem, get, remove, upload } from "/page/api.js";
import { byId, counted, make, redraw } from "/page/elements.js";
import { Shelf } from "/page/shelf.js";

const KEPT = "nazx.pending"; // ids of what was added and not asked about yet: a reload keeps it

export class Documents {
  #held = []; // of the session: {number, filename, tokens}
  #pending = []; // {id, filename, tokens, own}
  #shelf = new Shelf();
  #reading = []; // names of what is being sent
  #uploads = Promise.resolve();

  constructor({ tell, fail, drop }) {
    this.tell = tell;
    this.fail = fail;
    this.drop = drop; // takes a document out of the session by its number
    const input = byId("files");
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    this.#takeDrops();
  }

  // What was added before a reload, and what the server holds for everybody (`nazx serve --file`).
  async recover() {
    const ids = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    this.shared = (await this.#shelf.recover()).map((file) => pendingOf(file, false));
    const found = await Promise.allSettled(ids.map((id) => get(`/v1/files/${id}`)));
    this.#pending = found.filter((each) => each.value).map((each) => pendingOf(each.value, true));
  }

  // The documents that the session of the page has; one without any begins with the shared ones.
  show({ documents, turns }) {
    this.#held = documents;
    this.#pending = this.#pending.filter((each) => each.own);
    if (turns.length === 0) this.#pending.unshift(...this.shared);
    this.#draw();
  }

  // Another session is opened: it reads the server's own documents if it has none, or did before.
  opened(said) {
    const rests = (turn) => turn.sources.some((source) => source.file_id !== null);
    this.#shelf.read(said.documents.length === 0 || said.turns.some(rests));
    this.show(said);
  }

  // Ids that go with the next question, once all is sent.
  async ids() {
    await this.#uploads;
    return [...this.#shelf.files, ...this.#pending.map((each) => each.id)];
  }

  // The session has the documents `ids` now: the shelf need not.
  async taken(ids) {
    const isTaken = (each) => ids.includes(each.id);
    const own = this.#pending.filter((each) => each.own && isTaken(each));
    this.#pending = this.#pending.filter((each) => !isTaken(each));
    this.#keep();
    await Promise.allSettled(own.map((each) => remove(`/v1/files/${each.id}`)));
  }

  add(files) {
    for (const file of files) {
      this.#reading.push(file.name);
      this.#uploads = this.#uploads.then(() => this.#send(file));
    }
    this.#draw();
  }

  async #send(file) {
    this.tell(`Reading ${file.name}`);
    try {
      const made = pendingOf(await upload(file), true);
      this.#pending.push(made);
      this.#keep();
      this.tell(`${made.filename} is read: ${counted(made.tokens, "token")}.`);
    } catch (error) {
      this.fail(error instanceof Problem ? error : new Problem(`${file.name} cannot be read`, "choose a file"));
    }
    this.#reading.splice(this.#reading.indexOf(file.name), 1);
    this.#draw();
  }

  async #take(each) {
    this.#pending = this.#pending.filter((other) => other !== each);
    this.#keep();
    this.#draw();
    byId("files").focus();
    try {
      if (each.number !== undefined) await this.drop(each);
      else if (each.own) await remove(`/v1/files/${each.id}`);
      this.tell(`${each.filename} is removed.`);
    } catch (error) {
      this.fail(error);
    }
  }

  #keep() {
    const ids = this.#pending.filter((each) => each.own).map((each) => each.id);
    sessionStorage.setItem(KEPT, JSON.stringify(ids));
  }

  #draw() {
    const tokens = (each) => make("span", { class: "quiet" }, counted(each.tokens, "token"));
    const name = (text) => make("span", { class: "name", title: text }, text);
    // What the session took from an answer that was stopped is its own by now.
    const isHeld = (each) =>
      this.#held.some((held) => held.filename === each.filename && held.tokens === each.tokens);
    redraw(byId("documents"), [
      ...[...this.#held, ...this.#pending.filter((each) => !isHeld(each))].map((each) =>
        make("li", {}, name(each.filename), tokens(each),
          make("button", {
            class: "plain", type: "button", "aria-label": `Remove ${each.filename}`,
            onclick: () => this.#take(each),
          }, "×"))),
      ...this.#reading.map((each) => make("li", { class: "reading" }, name(each), "reading…")),
    ]);
  }

  // Files may be dropped anywhere on the page; the place for them shows that.
  #takeDrops() {
    const place = byId("drop");
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0; // elements that the pointer entered and has not left
    const mark = (by) => {
      depth = Math.max(0, depth + by);
      place.classList.toggle("over", depth > 0);
    };
    addEventListener("dragenter", (event) => hasFiles(event) && mark(1));
    addEventListener("dragleave", (event) => hasFiles(event) && mark(-1));
    addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      mark(-depth);
      this.add([...event.dataTransfer.files]);
    });
  }
}

const pendingOf = (file, own) =>
  ({ id: file.id, filename: file.filename, own, ...file.nazx });
