"""``nazx gauge``: memory in use on this machine, and what each running chat takes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from nazx_cli.cli.shared.options import Device, Json, OutputOptions, make_screen, option
from nazx_cli.ui.phrases import size_text
from nazx_cli.ui.terminal.interrupts import InterruptGuard, importing
from nazx_cli.ui.terminal.tables import Table

if TYPE_CHECKING:
    from rich.text import Text

    from nazx_cli.memory.probe import Reading
    from nazx_cli.ui.terminal.screen import Screen

_WIDTH = 80  # columns where there is no terminal


def gauge(
    device: Device = "auto",
    watch: Annotated[bool, option("--watch", "Go on until Ctrl-C.")] = False,
    interval: Annotated[
        float, option("--interval", "Seconds between two readings.", min=0.1)
    ] = 1.0,
    *,
    json: Json = False,
) -> None:
    """Show the memory in use, and what each running chat takes of it.

    Example: nazx gauge --watch
    """
    with importing():
        from nazx_cli.checkpoint.load import resolve_device

    screen, name = make_screen(OutputOptions()), str(resolve_device(device))
    _show(name, screen, json, interval if watch else None)


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

    def lines(self, width: int) -> list[Text]:
        """Device and memory, then a heading and a line for each chat, if there are any."""
        from nazx_cli.ui.terminal.gauge_line import as_text, draw

        device = f"{self.reading.device} "
        memory = as_text(draw(self.reading, width - len(device)))
        rows = [(name, f"pid {pid}", size_text(nbytes)) for name, pid, nbytes in self.chats]
        chats = Table(rows, ("CHAT", "PROCESS", "RESIDENT"), right=(2,))
        below = chats.lines(width) if rows else ["no chat is running"]
        return [
            as_text([]).append(device).append_text(memory),
            *(as_text([]).append(row) for row in below),
        ]


def _look(device: str) -> Look:
    from nazx_cli.catalog.stored import nazx_home
    from nazx_cli.memory.probe import read_memory, resident_bytes
    from nazx_cli.session.saving.store import Store

    reading = read_memory(device)
    # This process has nothing on the device: what all of them have is of interest.
    kind = "VRAM in use" if reading.kind == "VRAM" else "memory in use"
    shared = replace(reading, kind=kind, used=reading.in_use, reserved=0)
    running = Store(nazx_home() / "sessions").running()
    return Look(shared, tuple((name, pid, resident_bytes(pid)) for name, pid in running))


def _show(device: str, screen: Screen, as_json: bool, interval: float | None) -> None:
    """One reading, or with ``interval`` (seconds) one after the other until Ctrl-C: in place on
    a terminal, one a line anywhere else."""
    from nazx_cli.ui.terminal.live import Area, can_draw

    look = _look(device)
    if interval is None:
        _print(look, screen, as_json, is_one_line=False)
        return
    area = Area(screen.out) if not as_json and can_draw(screen.out) else None
    with InterruptGuard(defer=True) as guard:
        while True:
            if area is not None:
                area.draw([], look.lines(area.size[0] - 1))
            else:
                _print(look, screen, as_json, is_one_line=True)
            if guard.wait(interval):
                break
            look = _look(device)
    if area is not None:  # the last reading stays on the screen
        area.draw(look.lines(area.size[0] - 1), [])
        area.close()


def _print(look: Look, screen: Screen, as_json: bool, *, is_one_line: bool) -> None:
    if as_json:
        screen.data(look.as_data())
        return
    lines = [line.plain for line in look.lines(_WIDTH)]
    screen.line("; ".join([lines[0], *lines[2:]]) if is_one_line else "\n".join(lines))
