"""Compiled code is loaded only from where this user alone can have written it, and made again
where it cannot be used."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nazx_cli.kernels.native import compiler
from nazx_cli.kernels.native.private import private_folder

pytestmark = [
    pytest.mark.skipif(compiler.find_compiler() is None, reason="no compiler"),
    pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's"),
]
GOOD, PLANTED = 42, 666
NOBODY = 65534
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)


class Place:
    """A library of ours in its cache, and what it answers when it is asked for again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "kernels"
        self.source = home / "answer.c"
        self._write(GOOD)
        assert self.answer() == GOOD
        (self.kept,) = self.folder.iterdir()

    def _write(self, value: int, name: str = "answer") -> None:
        self.source.write_text(f"int {name}(void) {{ return {value}; }}\n")

    def answer(self) -> int | None:
        library = compiler.compile_library(self.source, {}, ["answer"])
        return None if library is None else int(library.answer())

    def plant(self, name: str = "answer") -> Path:
        """Another library in place of the kept one, as somebody might put it there."""
        self._write(PLANTED, name)
        made = self.home / "elsewhere" / "planted.so"
        made.parent.mkdir()
        found = compiler.find_compiler()
        assert found is not None
        assert compiler._made((found, "-shared", "-fPIC", str(self.source)), made, [name])
        self._write(GOOD)
        made.replace(self.kept)
        return self.kept


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("NAZX_KERNELS", str(tmp_path / "kernels"))
    return Place(tmp_path)


def test_what_is_kept_is_this_user_s_and_loaded_again(place: Place) -> None:
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.kept.stat().st_mode) == 0o700
    place.plant()  # nobody else could have: the check is not what makes it again
    assert place.answer() == PLANTED


def test_an_open_umask_does_not_open_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAZX_KERNELS", str(tmp_path / "kernels"))
    before = os.umask(0)
    try:
        place = Place(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.kept.stat().st_mode) == 0o700


def _give_file_away(place: Place) -> None:
    os.chown(place.kept, NOBODY, NOBODY)


def _open_file(place: Place) -> None:
    place.kept.chmod(0o777)


def _link_file(place: Place) -> None:
    target = place.home / "target.so"
    place.kept.replace(target)
    place.kept.symlink_to(target)


def _fifo(place: Place) -> None:
    place.kept.unlink()
    os.mkfifo(place.kept)


@pytest.mark.parametrize(
    "change", [pytest.param(_give_file_away, marks=as_root), _open_file, _link_file, _fifo]
)
def test_a_planted_file_is_made_anew(place: Place, change: Callable[[Place], None]) -> None:
    place.plant()
    change(place)
    assert place.answer() == GOOD
    assert stat.S_ISREG(place.kept.lstat().st_mode)
    assert place.answer() == GOOD
    assert compiler.unkept() == ""


def _give_folder_away(place: Place) -> None:
    os.chown(place.folder, NOBODY, NOBODY)


def _open_folder(place: Place) -> None:
    place.folder.chmod(0o777)


def _open_parent(place: Place) -> None:
    place.home.chmod(0o777)


def _give_parent_away(place: Place) -> None:
    os.chown(place.home, NOBODY, NOBODY)


def _sticky_folder(place: Place) -> None:
    place.folder.chmod(0o1777)


def _link_of_another(place: Place) -> None:
    real = place.home / "real"
    place.folder.replace(real)
    place.folder.symlink_to(real)
    os.lchown(place.folder, NOBODY, NOBODY)


def _link_through_an_open_folder(place: Place) -> None:
    real, open_to_all = place.home / "real", place.home / "open"
    open_to_all.mkdir()
    place.folder.replace(real)
    (open_to_all / "there").symlink_to(real)
    open_to_all.chmod(0o777)
    place.folder.symlink_to(open_to_all / "there")


@pytest.mark.parametrize(
    "change",
    [
        _open_folder,
        _open_parent,
        _sticky_folder,
        _link_through_an_open_folder,
        pytest.param(_give_folder_away, marks=as_root),
        pytest.param(_give_parent_away, marks=as_root),
        pytest.param(_link_of_another, marks=as_root),
    ],
)
def test_a_folder_that_others_decide_about_is_not_used(
    place: Place, change: Callable[[Place], None]
) -> None:
    planted = place.plant().read_bytes()
    change(place)
    try:
        assert place.answer() == GOOD
        assert compiler.unkept().startswith("compiled code is not kept: ")
        assert (place.folder / place.kept.name).read_bytes() == planted
    finally:
        os.chown(place.home, os.geteuid(), os.getegid())


def test_a_folder_in_a_sticky_one_is_used(place: Place) -> None:
    place.home.chmod(0o1777)
    assert private_folder(place.folder) == place.folder
    link = place.home / "link"
    link.symlink_to(place.folder.name)
    assert private_folder(link / ".." / "link") == place.folder


def test_links_in_a_circle_end(place: Place) -> None:
    (place.home / "a").symlink_to("b")
    (place.home / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many links"):
        private_folder(place.home / "a")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no library at all\n" * 100])
def test_a_broken_library_is_made_anew(place: Place, content: bytes) -> None:
    place.kept.unlink()  # the file that this process runs must stay as it is
    place.kept.write_bytes(content)
    assert place.answer() == GOOD
    assert len(place.kept.read_bytes()) > len(content)


def test_a_library_that_lacks_a_function_is_made_anew_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.plant("other")
    assert place.answer() == GOOD
    made: list[object] = []
    original = compiler._made
    monkeypatch.setattr(compiler, "_made", lambda *given: made.append(given) or original(*given))
    assert place.answer() == GOOD and made == []
    assert compiler.compile_library(place.source, {}, ["answer", "missing"]) is None
    assert len(made) == 1
    assert place.answer() == GOOD
