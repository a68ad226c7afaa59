"""``nazx serve``: answers, errors, queue and keys; a real server on loopback, asked by OpenAI's own
client and by bare sockets."""

from __future__ import annotations

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_helpers import run_nazx
from serving_helpers import MODEL, Server, ask_nazx, asked, start

from nazx_cli.bench.processes import serve as bench_serve
from nazx_cli.errors import NazxError

openai = pytest.importorskip("openai")


# Answers


def test_the_model_is_listed_by_its_name_alone(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_an_answer_is_the_one_that_nazx_ask_gives(server: Server, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asked("Who are you?"))
    told = ask_nazx(server, "Who are you?")
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == told["answer"] != ""
    assert choice.finish_reason == told["finish"] == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == told["stats"]["generated"]
    assert answer.usage.prompt_tokens == told["stats"]["prompt"]
    assert answer.usage.total_tokens == sum(told["stats"][n] for n in ("prompt", "generated"))


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    wanted = asked("Who are you?", temperature=1.5, top_p=0.9, seed=7)
    whole = client.chat.completions.create(**wanted)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**wanted, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5 and len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    finish = whole.choices[0].finish_reason
    assert [c.choices[0].finish_reason for c in chunks[:-1]][-2:] == [None, finish]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    plain = list(client.chat.completions.create(**wanted, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)


def test_earlier_messages_are_the_conversation(client: openai.OpenAI, server: Server) -> None:
    first = client.chat.completions.create(**asked("Who?")).usage
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "The fox."},
        {"role": "user", "content": [{"type": "text", "text": "And why?"}]},
    ]
    later = client.chat.completions.create(model=MODEL, messages=messages)
    assert first is not None and later.usage is not None
    said = len("system\nBe short.user\nWho?assistant\nThe fox.user\nAnd why?assistant\n")
    assert later.usage.prompt_tokens == said + 4 * 3 + 1  # a byte each, and the marks


def test_stop_ends_an_answer_before_it(client: openai.OpenAI) -> None:
    text = client.chat.completions.create(**asked()).choices[0].message.content
    stop = text[6:8]
    cut = client.chat.completions.create(**asked(stop=["never said", stop])).choices[0]
    assert cut.message.content == text[: text.index(stop)].rstrip()
    assert cut.finish_reason == "stop"
    chunks = client.chat.completions.create(**asked(stop=stop), stream=True)
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert told == cut.message.content


def test_logprobs_are_those_of_the_likeliest_at_temperature_0(client: openai.OpenAI) -> None:
    wanted = asked(logprobs=True, top_logprobs=3, temperature=0, max_tokens=6)
    choice = client.chat.completions.create(**wanted, extra_body={}).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content
    for token in choice.logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        likely = [each.logprob for each in token.top_logprobs]
        assert likely == sorted(likely, reverse=True) and token.logprob <= likely[0]
    assert "".join(t.token for t in choice.logprobs.content).strip() == choice.message.content
    chunks = list(client.chat.completions.create(**wanted, stream=True))
    streamed = [c.choices[0].logprobs.content[0] for c in chunks if c.choices[0].logprobs]
    assert [t.token for t in streamed] == [t.token for t in choice.logprobs.content]


def test_completions_go_on_with_raw_text(client: openai.OpenAI) -> None:
    wanted = {"model": MODEL, "prompt": ["abc", "abd"], "max_tokens": 8, "logprobs": 2}
    answer = client.completions.create(**wanted)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 16)
    first = answer.choices[0]
    assert first.logprobs is not None and first.logprobs.tokens
    assert "".join(first.logprobs.tokens) == first.text
    alone = client.completions.create(model=MODEL, prompt="abc", max_tokens=8)
    assert alone.choices[0].text == first.text
    chunks = client.completions.create(**wanted, stream=True)
    text = {0: "", 1: ""}
    for chunk in chunks:
        text[chunk.choices[0].index] += chunk.choices[0].text
    assert [text[0], text[1]] == [choice.text for choice in answer.choices]


# Errors


@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"model": "gpt-4"}, 404, "model", "model_not_found"),
        ({"model": None}, 400, "model", "missing"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", None),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages", None),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "messages[0].content", None),
        ({"temperature": -1}, 400, "temperature", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"top_p": 2}, 400, "top_p", "invalid_value"),
        ({"seed": 1 << 70}, 400, "seed", "invalid_value"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"stop": [""]}, 400, "stop", "invalid_value"),
        ({"stop": False}, 400, "stop", "invalid_value"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
        ({"n": 2}, 400, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
        ({"magic": 1}, 400, "magic", "unknown_parameter"),
        ({"nazx": {"magic": 1}}, 400, "nazx.magic", "unknown_parameter"),
        ({"nazx": {"read": "loudly"}}, 400, "nazx.read", "invalid_value"),
        ({"nazx": {"files": ["/etc/passwd"]}}, 404, "id", "file_not_found"),
        ({"nazx": {"files": "nazx"}}, 400, "nazx.files", "invalid_value"),
        ({"nazx": {"files": ""}}, 400, "nazx.files", "invalid_value"),
        ({"nazx": {"session": "../x"}}, 400, None, "invalid_value"),
    ],
)
def test_what_makes_no_sense_is_told_in_openais_shape(
    server: Server, more: dict[str, object], status: int, param: str | None, code: str | None
) -> None:
    found, body = server.raw("POST", "/v1/chat/completions", json.dumps(asked() | more).encode())
    error = body["error"]
    assert isinstance(error, dict)
    assert (found, error["type"]) == (status, "invalid_request_error"), body
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code
    assert error["message"] and str(server.home) not in error["message"]


def test_a_prompt_beyond_the_window_is_told_by_its_own_name(server: Server) -> None:
    body = json.dumps({"model": MODEL, "prompt": "a" * 2_000}).encode()
    status, told = server.raw("POST", "/v1/completions", body)
    error = told["error"]
    assert isinstance(error, dict) and status == 400
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")


def test_what_asks_for_nothing_is_taken(client: openai.OpenAI) -> None:
    nothing = {"n": 1, "presence_penalty": 0, "tools": [], "user": "me", "metadata": {"a": "b"}}
    answer = client.chat.completions.create(**asked(**nothing, max_tokens=2))
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'"x"', b"[" * 100_000, b'{"a": "\\ud800"}']
)
def test_a_body_that_is_no_json_object_is_a_400(server: Server, body: bytes) -> None:
    assert server.raw("POST", "/v1/chat/completions", body)[0] == 400


def test_other_paths_methods_and_types_have_their_status(server: Server) -> None:
    body = json.dumps(asked()).encode()
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/files/file-none", 404),
        ("DELETE", "/v1/files/file-none", 404),
        ("GET", "/v1/models/gpt-4", 404),
    ):
        found, told = server.raw(method, path, body)
        assert found == status and "error" in told
    assert server.raw("POST", "/v1/chat/completions", body, content_type="text/plain")[0] == 415


def test_pages_of_other_sites_are_let_do_nothing(server: Server) -> None:
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        assert server.raw("GET", "/v1/models", **headers)[0] == 403
    for site in ("cross-site", "same-site"):  # as browsers say it, where they name no origin
        assert server.raw("GET", "/nazx/sessions", sec_fetch_site=site)[0] == 403
    assert server.raw("GET", "/v1/models", origin="http://[")[0] == 403
    own = {"origin": f"http://localhost:{server.port}", "host": f"localhost:{server.port}"}
    assert server.raw("GET", "/v1/models", **own, sec_fetch_site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999999\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
def test_broken_requests_are_refused_and_the_next_is_answered(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as link:
        link.sendall(sent)
        answer = link.recv(200)
    assert answer.startswith(b"HTTP/1.1 4") or answer == b""
    assert server.raw("GET", "/health")[0] == 200


def test_a_body_without_end_is_cut_off(server: Server) -> None:
    head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    kind = b"content-type: multipart/form-data; boundary=b\r\n\r\n"
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as link:
        link.sendall(head + kind + b"%x\r\n%s\r\n" % (len(part), part))
        chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
        try:
            for _ in range(64):
                link.sendall(chunk)
        except OSError:
            pass
        answer = link.recv(200)
    assert answer.startswith(b"HTTP/1.1 413")


# Many at once


def test_sixty_four_at_once_are_all_answered_and_health_throughout(server: Server) -> None:
    def ask(number: int) -> str:
        body = json.dumps(asked(f"Who is {number}?", max_tokens=4)).encode()
        status, told = server.raw("POST", "/v1/chat/completions", body)
        assert status == 200, told
        return str(told["choices"][0]["message"]["content"])  # type: ignore[index]

    with ThreadPoolExecutor(64) as pool:
        answers = [pool.submit(ask, number) for number in range(64)]
        seen = 0
        while not all(answer.done() for answer in answers):
            assert json.loads(server.text("/health"))["status"] == "ok"
            seen = max(seen, int(server.metric("queue_waiting")))
    assert all(answer.result() for answer in answers)
    assert seen > 8
    server.wait_for("queue_running", 0)


def test_an_answer_that_its_client_leaves_is_stopped(server: Server) -> None:
    before = server.metric('tokens_total{kind="generated"}')
    wanted = asked(max_tokens=1_000_000, stream=True, temperature=1.5, top_p=0.5, seed=1)
    body = json.dumps(wanted).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as one,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as other,
    ):
        one.sendall(head + body)
        came = b""
        while came.count(b"data: ") < 3:  # whose role it is, and some of what it says
            came += one.recv(4096)
        assert b" 200 " in came
        other.sendall(head + body)
        server.wait_for("queue_waiting", 1)
    server.wait_for("queue_running", 0)
    assert server.metric("queue_waiting") == 0
    assert before < server.metric('tokens_total{kind="generated"}') < before + 100_000


def test_the_benchmark_counts_what_is_answered(server: Server) -> None:
    asked_by = bench_serve.Server(server.process, server.port, "float32")
    assert asked_by.ready() and asked_by.model == MODEL
    assert asked_by.warm_up(2) > 200  # a byte each
    assert asked_by.round(6, 3) > 0
    assert (asked_by.failed, asked_by.short) == (0, 0)
    (first,) = asked_by.firsts[6]
    assert first > 0
    asked_by.model = "another"
    with pytest.raises(NazxError, match="answered no request"):
        asked_by.round(2, 3)
    assert asked_by.failed == 4


# Who may ask, and the end


@pytest.mark.parametrize("key", [(), ("--api-key", ""), ("--api-key", " ")])
def test_a_server_that_others_reach_needs_a_key(key: tuple[str, ...]) -> None:
    out, err, code = run_nazx("serve", "--host", "0.0.0.0", *key, "--offline", "-m", "none/such")
    assert (out, code) == ("", 2)
    assert "there is no key; next: set NAZX_API_KEY" in err


def test_a_key_is_needed_where_there_is_one_and_an_interrupt_ends_with_130(
    tmp_path: Path,
) -> None:
    server = start(tmp_path, "--api-key", " s3cret ")  # as a file may have it
    try:
        assert [model.id for model in server.client("s3cret").models.list()] == [MODEL]
        for key in ("", "s3cre", "s3cret2"):
            with pytest.raises((openai.AuthenticationError, openai.APIConnectionError)):
                server.client(key or "x").models.list()
        assert server.raw("GET", "/metrics")[0] == 401
        assert server.raw("GET", "/health")[0] == 200
        wanted = asked(max_tokens=1_000_000, temperature=1.5, top_p=0.5, seed=1)
        stream = server.client("s3cret").chat.completions.create(**wanted, stream=True)
        next(iter(stream))
        assert server.end(signal.SIGINT) == 130
    finally:
        if server.process.poll() is None:
            server.process.kill()
