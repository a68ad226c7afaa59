"""``nazx gauge``: memory in use on this machine, and what each running chat takes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nazx_cli.cli.options import Json, OutputOptions, option

if TYPE_CHECKING:
    from rich.text import Text

    from nazx_cli.memory.probe import Reading
    from nazx_cli.ui.screen import Screen

_WIDTH = 80  # columns where there is no terminal


def gauge(
    device: Annotated[
        str, option("--device", "auto, cpu, cuda, cuda:N or mps.", metavar="NAME")
    ] = "auto",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", help="Seconds between two readings.", min=0.1)
    ] = 1.0,
    *,
    json: Json = False,
) -> None:
    """Show the memory in use, and what each running chat takes of it.

    Example: nazx gauge --watch
    """
    from nazx_cli.checkpoint.load import resolve_device
    from nazx_cli.cli.output import make_screen

    screen = make_screen(OutputOptions(json=json))
    name = str(resolve_device(device))
    if not watch:
        _show_once(_look(name), screen, json)
        return
    try:
        _watch(name, interval, screen, json)
    except KeyboardInterrupt:
        return


@dataclass(frozen=True)
class Look:
    """Memory of a device, and the (session, process, resident bytes) of chats that run now."""

    reading: Reading
    chats: tuple[tuple[str, int, int], ...]

    def as_data(self) -> dict[str, Any]:
        """The look as one JSON object."""
        return {
            "device": self.reading.device,
            "kind": self.reading.kind,
            "used_bytes": self.reading.used,
            "free_bytes": self.reading.free,
            "total_bytes": self.reading.total,
            "chats": [
                {"session": name, "pid": pid, "resident_bytes": nbytes}
                for name, pid, nbytes in self.chats
            ],
        }

    def bar(self, width: int) -> Text:
        """Device and memory as one line."""
        from nazx_cli.ui.gauge_line import as_text, draw

        text = as_text(draw(self.reading, width - len(self.reading.device) - 1))
        return as_text([]).append(f"{self.reading.device} ").append_text(text)

    def rows(self) -> list[str]:
        """A line for each chat."""
        from nazx_cli.ui.phrases import columns, size_text

        if not self.chats:
            return ["no chat is running"]
        rows = [(name, f"pid {pid}", size_text(nbytes)) for name, pid, nbytes in self.chats]
        return columns([("CHAT", "PROCESS", "RESIDENT"), *rows], right=(2,)).split("\n")


def _look(device: str) -> Look:
    from nazx_cli.catalog.home import nazx_home
    from nazx_cli.memory.probe import read_memory, resident_bytes
    from nazx_cli.session.store import Store

    reading = read_memory(device)
    # This process has nothing on the device: what all of them have is of interest.
    kind = "VRAM in use" if reading.kind == "VRAM" else "memory in use"
    shared = replace(reading, kind=kind, used=reading.in_use, reserved=0)
    running = Store(nazx_home() / "sessions").running()
    return Look(shared, tuple((name, pid, resident_bytes(pid)) for name, pid in running))


def _show_once(look: Look, screen: Screen, as_json: bool) -> None:
    from nazx_cli.ui.live import Area, can_draw

    if as_json:
        screen.data(look.as_data())
    elif can_draw(screen.out):
        area = Area(screen.out)
        area.draw(_lines(look, area.size[0]), [])
        area.close()
    else:
        screen.line("\n".join([look.bar(_WIDTH).plain, *look.rows()]))


def _watch(device: str, interval: float, screen: Screen, as_json: bool) -> None:
    """Readings in place on a terminal, one a line anywhere else."""
    from nazx_cli.ui.live import Area, can_draw

    area = Area(screen.out) if not as_json and can_draw(screen.out) else None
    look = _look(device)
    try:
        while True:
            if area is not None:
                area.draw([], _lines(look, area.size[0]))
            elif as_json:
                screen.data(look.as_data())
            else:
                screen.line("; ".join([look.bar(_WIDTH).plain, *look.rows()[1:]]))
            time.sleep(interval)
            look = _look(device)
    finally:
        if area is not None:  # the last reading stays on the screen
            area.draw(_lines(look, area.size[0]), [])
            area.close()


def _lines(look: Look, width: int) -> list[Text]:
    from rich.text import Text

    return [look.bar(width - 1), *map(Text, look.rows())]
