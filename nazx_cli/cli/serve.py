"""``nazx serve``: an OpenAI-compatible server."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

import typer

from nazx_cli.amounts import parse_bytes
from nazx_cli.cli.shared.answers import AnswerOptions
from nazx_cli.cli.shared.documents import Given, IndexOptions
from nazx_cli.cli.shared.options import (
    Files,
    ModelOptions,
    OutputOptions,
    Quiet,
    count_option,
    make_screen,
    option,
)
from nazx_cli.cli.shared.ranks import refuse_ranks
from nazx_cli.cli.shared.stdin import piped_text
from nazx_cli.errors import NazxError, UsageError, without_credentials
from nazx_cli.ui.terminal.interrupts import INTERRUPTED


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens, and how much it takes."""

    host: Annotated[
        str, option("--host", "Address to listen at. Beyond this machine only with --api-key.")
    ] = "127.0.0.1"
    port: Annotated[
        int, option("--port", "Port to listen at; 0: a free one.", min=0, max=65535, metavar="N")
    ] = 8080
    api_key: Annotated[
        str | None,
        option("--api-key", "Key that every request must have; better as NAZX_API_KEY."),
    ] = None
    queue: Annotated[int, count_option("--queue", "Most requests that may wait.")] = 256
    max_file: Annotated[
        str, option("--max-file", "Most bytes of a document that is sent.", metavar="SIZE")
    ] = "100MB"


def serve(
    file: Files = None,
    *,
    model: ModelOptions,
    answers: AnswerOptions,
    index: IndexOptions,
    options: ServeOptions,
    quiet: Quiet = False,
) -> None:
    """Serve a model as a page in the browser, and to other programs by OpenAI's interface.

    Documents come in by --file and by POST /v1/files. See nazx help serve.

    Example: nazx serve --file book.txt
    """
    refuse_ranks("serve")
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise NazxError("nazx serve needs starlette and uvicorn", "pip install 'nazx[serve]'")
    from nazx_cli.cli.shared.opening import load_with, models_of
    from nazx_cli.serving.gate import is_loopback

    key = (options.api_key or "").strip()  # no request can tell of space around it
    if not is_loopback(options.host) and not key:
        raise UsageError(
            f"{options.host} can be reached from other machines, and there is no key",
            "set NAZX_API_KEY, or leave --host out",
        )
    screen = make_screen(OutputOptions(quiet=quiet))
    screen.start_computing()
    settings, most = answers.settings(), parse_bytes(options.max_file)
    from nazx_cli.catalog.stored import nazx_home
    from nazx_cli.serving.app import Limits, Service
    from nazx_cli.serving.desk import Served
    from nazx_cli.serving.server import listen
    from nazx_cli.serving.server import serve as run
    from nazx_cli.session.saving.store import Store

    piped = piped_text(screen, wanted=True) if "-" in (file or ()) else None
    bound = listen(options.host, options.port)
    with bound:
        models = models_of(model, screen)
        given = Given.look(file or (), piped, index.index_of(), screen)
        lm, documents = load_with(model.model, models, settings, given)
        store, tag = Store(nazx_home() / "sessions"), models.tag(lm.name, lm.folder)
        served = Served(lm, settings, store, tag, documents, given.index)

        def tell(error: BaseException) -> None:
            screen.error(NazxError(without_credentials(f"{type(error).__name__}: {error}")))

        def make() -> Service:
            limits = Limits(most, options.queue)
            return Service(served, tell, key=key or None, limits=limits)

        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        ended = run(
            make,
            bound,
            lambda: screen.note(
                f"serving at http://{shown}:{port}; for programs http://{shown}:{port}/v1"
            ),
        )
    if ended == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)
