"""The server's routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import to_thread
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from nazx_cli import __version__
from nazx_cli.foreign import expanded
from nazx_cli.serving import saved
from nazx_cli.serving.desk import Desk, End, Piece, Served
from nazx_cli.serving.errors import ApiError, as_api_error, is_fault
from nazx_cli.serving.excerpts import excerpt
from nazx_cli.serving.gate import Gate
from nazx_cli.serving.metrics import Metrics
from nazx_cli.serving.page import Page
from nazx_cli.serving.replies import Reply, event
from nazx_cli.serving.requests import (
    ChatRequest,
    CompletionRequest,
    chat_request,
    completion_request,
)
from nazx_cli.serving.shelf import Shelf
from nazx_cli.serving.worker import Job, Work, Worker
from nazx_cli.session.prompt import read_mode

T = TypeVar("T")
_FILES = "/v1/files"
_MOST_TEXT = 16 << 20  # bytes of a request that is no upload
_ENVELOPE = 1 << 16  # bytes that an upload has beside its file


@dataclass(frozen=True)
class Limits:
    """Bytes of a document, and requests that may wait."""

    document: int = 100 << 20
    waiting: int = 256


class Service:
    """One model behind HTTP. ``on_fault`` is told of what is no fault of a request.

    The model is used from the worker's thread alone, from ``start`` on.
    """

    def __init__(
        self,
        served: Served,
        on_fault: Callable[[BaseException], None],
        *,
        key: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        lm = served.lm
        self.limits = limits or Limits()
        # A model of a folder goes by its name alone: paths of this machine are nobody's business.
        folder = expanded(lm.name)
        self.model = folder.resolve().name if folder.is_dir() else lm.name
        self.metrics = Metrics(lm)
        self.worker = Worker(self.limits.waiting, on_fault, self.metrics.look)
        attends = read_mode(served.settings, lm) == "resident"  # which needs them in memory
        self.shelf = Shelf(lm, served.documents, None if attends else served.index)
        self._desk = Desk(served, self.metrics.count_tokens)
        self._on_fault = on_fault
        self._began = int(time.time())
        self._reading = asyncio.Semaphore(1)  # uploads that are taken apart at once
        lm.heed = self.worker.heed
        self._store = served.store
        self._page = Page()
        free = {"/health", *self._page.paths}
        self.app: ASGIApp = Gate(self._routes(), key, self._most, free)

    def _most(self, path: str) -> int:
        return self.limits.document + _ENVELOPE if path == _FILES else _MOST_TEXT

    def _routes(self) -> Starlette:
        table: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("GET", "/health", self._health),
            ("GET", "/metrics", self._metrics),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/{id:path}", self._one_model),
            ("POST", "/v1/chat/completions", self._chat),
            ("POST", "/v1/completions", self._complete),
            ("POST", _FILES, self._upload),
            ("GET", _FILES, self._list_files),
            ("GET", f"{_FILES}/{{id}}", self._one_file),
            ("DELETE", f"{_FILES}/{{id}}", self._delete_file),
            ("GET", "/nazx/gauge", self._gauge),
            ("GET", "/nazx/files/{id}/passage", self._passage_of_file),
            ("GET", "/nazx/sessions", self._sessions),
            ("GET", "/nazx/sessions/{name}", self._session),
            ("DELETE", "/nazx/sessions/{name}", self._delete_session),
            ("DELETE", "/nazx/sessions/{name}/documents/{number:int}", self._drop),
            ("GET", "/nazx/sessions/{name}/documents/{number}/passage", self._passage),
            *(("GET", path, self._page.send) for path in sorted(self._page.paths)),
        )
        routes = [Route(path, self._told(path, do), methods=[way]) for way, path, do in table]
        return Starlette(routes=routes, exception_handlers={HTTPException: self._no_route})

    def _told(
        self, path: str, do: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """``do`` whose errors are answered in OpenAI's shape; each answer is counted."""

        async def endpoint(request: Request) -> Response:
            try:
                response = await do(request)
            except ClientDisconnect:
                response = Response(status_code=499)  # which nobody reads
            except Exception as error:
                response = self._failed(error)
            self.metrics.count_request(path, response.status_code)
            return response

        return endpoint

    def _failed(self, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # of a form that is none
            error = ApiError(error.status_code, error.detail, "file", "invalid_form")
        if is_fault(error):
            self._on_fault(error)
        told = as_api_error(error)
        return JSONResponse(told.body, told.status)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        method, path = request.method, request.url.path[:80]
        told = ApiError(status, f"Invalid URL ({method} {path})", None, "unknown_url")
        headers = getattr(error, "headers", None)
        self.metrics.count_request("other", status)
        return JSONResponse(told.body, status, headers)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    async def _metrics(self, request: Request) -> Response:
        text = self.metrics.text(self.worker, self.shelf)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model_record()]})

    async def _one_model(self, request: Request) -> Response:
        if (name := request.path_params["id"]) != self.model:
            message = f"The model '{name[:80]}' does not exist"
            raise ApiError(404, message, "model", "model_not_found")
        return JSONResponse(self._model_record())

    def _model_record(self) -> dict[str, Any]:
        owner = {"created": self._began, "owned_by": "nazx"}
        return {"id": self.model, "object": "model", **owner}

    async def _chat(self, request: Request) -> Response:
        asked = chat_request(await _json(request), self.model)
        held = self.shelf.named(asked.files)
        return await self._answer(request, asked, lambda: self._desk.chat(asked, held))

    async def _complete(self, request: Request) -> Response:
        asked = completion_request(await _json(request), self.model)
        return await self._answer(request, asked, lambda: self._desk.complete(asked))

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        work: Work[Piece | End],
    ) -> Response:
        reply = Reply(asked, self.model)
        items = self._items(request, self.worker.submit(work))
        if not asked.manner.stream:
            return JSONResponse(reply.whole([item async for item in items]))
        first = await anext(items)  # what fails before it has a status of its own
        stream = self._streamed(first, items, reply)
        headers = {"cache-control": "no-cache"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _streamed(
        self, first: Piece | End, items: AsyncGenerator[Piece | End, None], reply: Reply
    ) -> AsyncIterator[bytes]:
        try:
            for chunk in reply.chunks(first):
                yield chunk
            async for item in items:
                for chunk in reply.chunks(item):
                    yield chunk
            for chunk in reply.last_chunks():
                yield chunk
        except ApiError as error:
            yield event(error.body)
        finally:
            await items.aclose()

    async def _items(self, request: Request, job: Job[T]) -> AsyncGenerator[T, None]:
        """What ``job`` yields; it ends when the client leaves."""
        watch = asyncio.create_task(_leave_with(request, job))
        try:
            async for item in job:
                yield item
        finally:
            watch.cancel()
            job.leave()

    async def _done(self, request: Request, work: Work[T]) -> list[T]:
        """All that ``work`` yields, in its turn."""
        return [item async for item in self._items(request, self.worker.submit(work))]

    async def _upload(self, request: Request) -> Response:
        async with request.form(max_files=1, max_fields=8, max_part_size=_ENVELOPE) as form:
            file, purpose = form.get("file"), form.get("purpose", "user_data")
            if not isinstance(file, UploadFile) or not isinstance(purpose, str):
                raise ApiError(400, "file must be a file, sent as a form", "file", "missing")
            nbytes = file.size or 0
            if nbytes > self.limits.document:
                most = self.limits.document
                raise ApiError(413, f"a file has at most {most:,} bytes", "file", "too_large")
            async with self._reading:
                upload = await to_thread.run_sync(
                    self.shelf.receive, file.filename, file.file, nbytes, purpose[:80]
                )
        (held,) = await self._done(request, lambda: self.shelf.add(upload))
        if await request.is_disconnected():
            self._remove(held.id)
        return JSONResponse(held.record)

    async def _list_files(self, request: Request) -> Response:
        return JSONResponse(await to_thread.run_sync(self.shelf.page, request.query_params))

    async def _one_file(self, request: Request) -> Response:
        return JSONResponse(self.shelf.get(request.path_params["id"]).record)

    async def _delete_file(self, request: Request) -> Response:
        id = request.path_params["id"]
        self._remove(id)
        return JSONResponse({"id": id, "object": "file", "deleted": True})

    def _remove(self, id: str) -> None:
        held = self.shelf.remove(id)
        if held.document not in self.shelf:
            self.worker.submit(lambda: self._desk.forget(held.document), always=True)

    async def _gauge(self, request: Request) -> Response:
        return JSONResponse(self.metrics.gauge(self.worker, self.shelf, self._desk.usage))

    async def _passage_of_file(self, request: Request) -> Response:
        held = self.shelf.get(request.path_params["id"])
        document, asked = held.document.document, request.query_params
        return JSONResponse((await to_thread.run_sync(excerpt, document, asked)).record)

    async def _sessions(self, request: Request) -> Response:
        data = await to_thread.run_sync(saved.listed, self._store)
        return JSONResponse({"object": "list", "data": data})

    async def _session(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(await to_thread.run_sync(saved.told, self._store, name, self.shelf))

    async def _delete_session(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._done(request, lambda: self._desk.remove(name))
        return JSONResponse({"name": name, "deleted": True})

    async def _drop(self, request: Request) -> Response:
        name, number = (request.path_params[each] for each in ("name", "number"))
        (filename,) = await self._done(request, lambda: self._desk.drop(name, number))
        return JSONResponse({"name": name, "filename": filename, "deleted": True})

    async def _passage(self, request: Request) -> Response:
        name, number = (request.path_params[each] for each in ("name", "number"))
        document = await to_thread.run_sync(saved.document, self._store, name, number)
        return JSONResponse(
            (await to_thread.run_sync(excerpt, document, request.query_params)).record
        )


async def _json(request: Request) -> bytes:
    """The body of a request that is JSON by its own word: a form of another site's page is not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the content type must be application/json", None, "content_type")
    return await request.body()


async def _leave_with(request: Request, job: Job[Any]) -> None:
    """Have ``job`` end when the client has gone."""
    with suppress(ApiError):  # of more bytes than were announced
        while (await request.receive())["type"] != "http.disconnect":
            pass
    job.leave()
