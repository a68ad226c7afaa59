"""Passwords and keys in URLs are shown nowhere: not by errors, doctor, JSON or a traceback."""

from __future__ import annotations

import json
import time

import pytest
from cli_helpers import run_nazx
from fake_hub import FakeHub, FakeRepo

from nazx_cli.cli import doctor
from nazx_cli.cli.app import handled
from nazx_cli.errors import NazxError, UsageError, first_line, without_credentials

SECRETS = ("Us3r", "s3cret", "w0rd")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://Us3r:s3cret@host:81/a", "http://***@host:81/a"),
        ("to 'https://Us3r@host' and ftp://Us3r:@h", "to 'https://***@host' and ftp://***@h"),
        ("file://Us3r:s3cret@server/share", "file://***@server/share"),
        ("http://Us3r:s3cret@w0rd@host/a@b", "http://***@host/a@b"),
        ("http://Us3r:s3cret/w0rd@host/a", "http://***@host/a"),
        ("http://Us3r:s3cret?w0rd#@host/a", "http://***@host/a"),
        ("http://Us3r:%40s3cret@[::1]:8/", "http://***@[::1]:8/"),
        ("https://h/x?a=1&X-Amz-Signature=s3cret&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?token=s3cret#f", "https://h/x?token=***#f"),
        ("https://h/#access_token=s3cret", "https://h/#access_token=***"),
    ],
)
def test_what_is_secret_in_a_url_is_taken_out(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    error = NazxError(f"cannot read {text}", f"see {text}")
    assert str(error) == f"cannot read {shown} (see {shown})"
    assert error.args == (f"cannot read {shown}",)
    assert first_line(ValueError(f"{text}\nmore")) == shown


@pytest.mark.parametrize(
    "text",
    [
        "write to me@example.org",
        "http://localhost:8080/repo@main and http://[::1]:8080/repo@main",
        "https://host/a?page=2&keyword=tea#part",
        "nothing at all",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_a_long_text_takes_no_time() -> None:
    started = time.process_time()
    for text in ("://a:b" * 5_000, "?" + "key" * 10_000, "://" + "a:" * 10_000):
        without_credentials(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://Us3r:s3cret@127.0.0.1:9",
        "http://Us3r:s3cret@w0rd@127.0.0.1:9",
        "http://Us3r:s3cret/w0rd@127.0.0.1:9",
        "http://Us3r:s3cret#w0rd@127.0.0.1:9",
        "Us3r:s3cret@127.0.0.1:9",
        "http://Us3r:s3cret@[::1",
        "ftp://Us3r:s3cret@127.0.0.1:9",
        "http://Us3r:s3cret@:9",
    ],
)
def test_a_password_in_the_endpoint_is_not_shown(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    out, err, code = run_nazx("pull", "org/none", "--json")
    told = out + err + json.dumps(doctor._hub(False)) + json.dumps(doctor._hub(True))
    assert code == 5 and err.count("\n") == 1
    assert not [secret for secret in SECRETS if secret in told]


def test_a_password_in_the_endpoint_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub({"org/none": FakeRepo({})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("://", "://Us3r:s3cret@"))
        told = doctor._hub(False)
        _, err, code = run_nazx("pull", "org/none")
    assert told["reachable"] and "***@127.0.0.1" in told["endpoint"]
    assert code == 5 and "holds no weights" in err
    assert not [secret for secret in SECRETS if secret in json.dumps(told) + err]


@pytest.mark.parametrize("debug", ["", "1"])
def test_neither_bugs_nor_tracebacks_show_a_password(
    debug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAZX_DEBUG", debug)
    address = "http://Us3r:s3cret@host/x"

    def fail_by_mistake() -> None:
        raise ValueError(f"no answer from {address}")

    def fail() -> None:
        try:
            fail_by_mistake()
        except ValueError:
            raise UsageError(f"{address} is no model", "name another") from None

    for body in (fail, fail_by_mistake):
        with pytest.raises(BaseException):  # noqa: B017 - typer's own
            handled(body)()
    told = capsys.readouterr().err
    assert "http://***@host/x" in told and bool(debug) == ("Traceback" in told)
    assert not [secret for secret in SECRETS if secret in told]
