// The page: a session, its documents and its conversation; one question at a time.

import { Problem, chat, get, onKeyNeeded, remove } from "/page/api.js";
import { Documents } from "/page/documents.js";
import { byId } from "/page/elements.js";
import { keepLooking, look } from "/page/gauge.js";
import { addressOf, currentName, freshName, list, onDelete, pathOf } from "/page/sessions.js";
import { Passages, Turn } from "/page/talk.js";

const talk = byId("talk");
const question = byId("question");
const send = byId("send");
let model = null;
let session = null; // the name of the one that is open; null: it gets one with its first question
let answering = null; // aborts the answer that is on its way

const documents = new Documents({ tell, fail, drop });
const passages = new Passages({ session: () => session, fail });

function tell(text) {
  byId("status").textContent = text;
}

function fail(error) {
  const known = error instanceof Problem;
  if (!known) console.error(error);
  byId("problem").textContent = known ? error.message : "this page failed; next: reload it";
  byId("problem").hidden = false;
}

function clear() {
  byId("problem").hidden = true;
}

function show(name) {
  session = name;
  byId("session-title").textContent = name ?? "New session";
  document.title = name === null ? "NazX" : `${name} · NazX`;
}

// Opens what the address names: a session, or a new one.
async function open() {
  answering?.abort();
  clear();
  show(currentName());
  const wanted = session;
  let said = { documents: [], turns: [] };
  if (wanted !== null) {
    try {
      said = await get(pathOf(wanted));
    } catch (error) {
      if (error.code !== "session_not_found") fail(error); // else nothing is saved in it yet
    }
  }
  if (wanted !== session) return; // another was opened meanwhile
  documents.opened(said);
  talk.replaceChildren(...said.turns.map(saidBefore));
  talk.scrollTop = talk.scrollHeight;
  await list().catch(fail);
}

function saidBefore({ question, answer, interrupted, doubt, sources }) {
  const turn = new Turn(question, passages);
  turn.add(answer);
  turn.end(interrupted ? "stopped" : "", sources, 1); // what was read, its own sources first
  if (doubt) turn.doubt(doubt, null);
  return turn.element;
}

async function ask(text) {
  clear();
  if (session === null) {
    show(freshName());
    history.pushState(null, "", addressOf(session));
  }
  const turn = new Turn(text, passages);
  talk.append(turn.element);
  turn.element.scrollIntoView({ block: "end" });
  question.value = "";
  const abort = new AbortController();
  begin(abort);
  const wanted = session;
  const began = performance.now();
  let end = { finish: null, sources: [], notices: [], tokens: 0 };
  try {
    turn.wait("reading…");
    const files = await Promise.race([documents.ids(), whenStopped(abort.signal)]);
    await chat(
      { model, messages: [{ role: "user", content: text }], nazx: { session, files } },
      abort.signal,
      (event) => { end = take(event, turn, end); },
    );
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const cut = end.finish === "length" ? ["cut off at its longest"] : [];
    const title = end.likely ? "Likely sources" : undefined;
    turn.end([...cut, ...end.notices, `${seconds} s`].join(" · "), end.sources, undefined, title);
    if (end.doubt) turn.doubt(end.doubt, end.other);
    tell(turn.text === "" ? "The answer is empty." : "The answer is here.");
    await documents.taken(files);
  } catch (error) {
    const stopped = error.name === "AbortError";
    turn.end(stopped ? "stopped" : "failed");
    if (stopped) tell("Stopped.");
    else fail(error);
    if (!stopped && turn.text === "" && question.value === "") { // to be asked again
      question.value = text;
      turn.element.remove();
    }
  }
  finish(abort);
  if (wanted === session) await refresh(wanted);
}

// Fails when the person stops, whatever is waited for meanwhile.
function whenStopped(signal) {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function take(event, turn, end) {
  const choice = event.choices[0];
  if (choice === undefined) return { ...end, tokens: event.usage.completion_tokens };
  const { content, annotations, nazx } = choice.delta;
  const near = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
  turn.add(content ?? "");
  if (near) talk.scrollTop = talk.scrollHeight;
  if (!annotations) return end;
  const sources = annotations.map((each) => each.file_citation);
  const { notices, likely, doubt, runner_up: other } = nazx;
  return { ...end, finish: choice.finish_reason, notices, sources, likely, doubt, other };
}

// What the last answer changed beside itself.
async function refresh(wanted) {
  await Promise.allSettled([look(), list()]);
  const said = await get(pathOf(wanted)).catch(() => null);
  if (said !== null && wanted === session) documents.show(said);
}

// Takes a document out of the session that is open.
async function drop({ number }) {
  clear();
  const wanted = session;
  try {
    await remove(`${pathOf(wanted)}/documents/${number}`);
  } finally {
    if (wanted === session) await refresh(wanted);
  }
}

function begin(abort) {
  answering = abort;
  send.textContent = "Stop";
  send.classList.add("stop");
  tell("Answering. Escape stops.");
}

function finish(abort) {
  if (answering !== abort) return;
  answering = null;
  send.textContent = "Ask";
  send.classList.remove("stop");
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) answering.abort();
  else if (question.value.trim()) ask(question.value.trim());
});

send.addEventListener("click", (event) => {
  if (!answering) return;
  event.preventDefault(); // stops with an empty question too
  answering.abort();
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!answering && question.value.trim()) ask(question.value.trim());
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) answering?.abort();
});

function beginAnew() {
  history.pushState(null, "", location.pathname);
  fold(false);
  return open().then(() => question.focus());
}

byId("new").addEventListener("click", beginAnew);

onDelete(async (name) => {
  clear();
  if (name === session) await beginAnew();
  else await list();
  tell(`Session ${name} is deleted.`);
}, fail);

function fold(isOpen) {
  byId("side").classList.toggle("open", isOpen);
  byId("fold").setAttribute("aria-expanded", String(isOpen));
}

byId("fold").addEventListener("click", () => fold(!byId("side").classList.contains("open")));
addEventListener("popstate", () => { fold(false); open(); });

onKeyNeeded((refused) => new Promise((resolve) => {
  const dialog = byId("key");
  const value = byId("key-value");
  if (refused) byId("key-about").textContent = "That key is not the server's; try again.";
  value.value = "";
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => resolve(value.value), { once: true });
  dialog.showModal();
}));

async function start() {
  const { data } = await get("/v1/models");
  model = data[0].id;
  byId("model").textContent = model;
  await documents.recover();
  await open();
  keepLooking();
  question.focus();
}

start().catch(fail);
