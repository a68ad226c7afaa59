// Requests to the server. What fails is a Problem: one line, with what to do next.

const KEY = "nazx.key";
const NEXT = {
  content_type: "reload the page",
  context_length_exceeded: "ask something shorter, or start a new session",
  fault: "look at what nazx serve says",
  file_not_found: "add the document again",
  invalid_file: "choose a text, source code, HTML, PDF with text, EPUB or DOCX",
  memory_limit: "remove documents, or give nazx serve more memory",
  origin: "open the page by the server's own address",
  passage_not_found: "reload the page: the document is another now",
  queue_full: "wait a moment and ask again",
  session_not_found: "choose another session",
  session_open: "close it there, or start a new session",
  shutting_down: "start nazx serve again",
  too_large: "choose a smaller file, or start nazx serve with a larger --max-file",
};

export class Problem extends Error {
  constructor(message, next, code) {
    super(next ? `${message}; next: ${next}` : message);
    this.code = code;
  }
}

let askForKey = null; // made by page.js: shows the form, resolves when there is a key
let asking = null;

export function onKeyNeeded(show) {
  askForKey = show;
}

function problemOf(error) {
  const code = error?.code ?? null;
  return new Problem(error?.message ?? "the server cannot answer this", NEXT[code] ?? "try again", code);
}

function newKey(refused) {
  asking ??= askForKey(refused)
    .then((key) => sessionStorage.setItem(KEY, key))
    .finally(() => { asking = null; });
  return asking;
}

// The response, whatever its kind; `options` are those of fetch.
async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server cannot be reached", "start nazx serve and try again", "unreachable");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    if (sessionStorage.getItem(KEY) === key) await newKey(key !== null);
    return request(path, options);
  }
  const body = await response.json().catch(() => null);
  throw problemOf(body?.error);
}

export const get = async (path) => (await request(path)).json();

export const remove = async (path) => (await request(path, { method: "DELETE" })).json();

export async function upload(file) {
  const body = new FormData();
  body.append("purpose", "user_data");
  body.append("file", file, file.name);
  return (await request("/v1/files", { method: "POST", body })).json();
}

// Asks, and gives each event of the stream to `take` as it comes.
export async function chat(body, signal, take) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw problemOf(event.error);
      take(event);
    }
  } catch (error) {
    if (error instanceof TypeError) { // how fetch tells of a connection that broke
      throw new Problem("the server has gone", "start nazx serve and ask again", "unreachable");
    }
    throw error;
  }
  throw new Problem("the answer was cut off", "ask again", "cut_off");
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice(6);
    }
  }
}
