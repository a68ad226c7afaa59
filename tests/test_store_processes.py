"""Sessions under real processes: killed while they save, two at once, and no room to write."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from reading_helpers import alice_text, small_tokenizer
from store_helpers import MODEL, assert_same, full_state, part_of, python, turn_of

from nazx_cli.errors import NazxError, UsageError
from nazx_cli.session.saving.store import Store
from nazx_cli.session.state import State

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")

SAVE_FOR_EVER = """
import itertools, os, resource, signal
from pathlib import Path
from nazx_cli.session.state import History
from nazx_cli.session.state import State
from nazx_cli.session.saving.store import Store
from reading_helpers import alice_text
from store_helpers import MODEL, part_of, turn_of

parts = [part_of(f"{n}.txt", alice_text()[n * 100 : 30_000]) for n in range(3)]

def save(start, room):
    # As many turns as were saved before, then one more in each save, and another document.
    if room:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    turns = tuple(turn_of(n, "x" * 5000) for n in range(start))
    with Store(Path(sys.argv[1])).open("work", create=True) as file:
        for number in itertools.count(start):
            turns = (*turns, turn_of(number, "x" * 5000))
            state = State((parts[number % 3],), History(turns))
            file.save({"main": state, "side": State((parts[-1],))}, "main", (), MODEL)
            os.write(1, b"%d\\n" % len(turns))  # at once: a kill must not part it from its end

for order in sys.stdin:  # a fork is there at once, without importing all of it again
    process = os.fork()
    if not process:
        save(*map(int, order.split()))
    print("pid", process, flush=True)
    print("ended", -os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""

HOLD = """
from pathlib import Path
from nazx_cli.session.saving.store import Store
from store_helpers import MODEL, full_state
file = Store(Path(sys.argv[1])).open("work", create=True)
file.save({"main": full_state()}, "main", (), MODEL)
print("saved", flush=True)
sys.stdin.readline()
file.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sessions")


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        python(code, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def order(process: subprocess.Popen[str], turns: int, room: int) -> None:
    """Have it save on from ``turns``, files at most ``room`` bytes long (0: no limit)."""
    assert process.stdin is not None
    process.stdin.write(f"{turns} {room}\n")
    process.stdin.flush()


def main_of(store: Store) -> State:
    with store.open("work", create=False) as file:
        saved = file.load(small_tokenizer(), MODEL)
    assert saved is not None
    return saved.branches["main"]


def assert_whole(store: Store) -> int:
    """The session is one of those that SAVE_FOR_EVER saves; how many turns it has."""
    (listed,) = store.infos()
    assert listed.problem == ""
    state = main_of(store)
    turns = len(state.history.turns)
    assert listed.turns == turns
    assert state.history.turns == tuple(turn_of(n, "x" * 5000) for n in range(turns))
    number = (turns - 1) % 3
    part = part_of(f"{number}.txt", alice_text()[number * 100 : 30_000])
    assert_same(State(state.documents), State((part,)))
    return turns


def test_a_process_killed_while_it_saves_loses_at_most_that_save(store: Store) -> None:
    rng = random.Random(5)
    turns = 0
    with child(SAVE_FOR_EVER, str(store.folder)) as process:
        for _ in range(20):
            order(process, turns, 0)
            told = turns
            pid = int(line(process.stdout).removeprefix("pid "))
            for _ in range(rng.randrange(1, 3)):
                told = int(line(process.stdout))
            time.sleep(rng.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
            while (more := line(process.stdout)).isdigit():
                told = int(more)
            assert more == f"ended {signal.SIGKILL:d}"
            turns = assert_whole(store)
            assert told <= turns <= told + 1
    assert turns >= 20


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_last_save(store: Store) -> None:
    """The system kills it at a certain byte: where a file reaches the limit on its size."""
    turns = 0
    with child(SAVE_FOR_EVER, str(store.folder)) as process:
        for room in (1000, 5000, *range(20_000, 120_000, 7000)):
            order(process, turns, room)
            assert line(process.stdout).startswith("pid ")
            told = turns
            while (more := line(process.stdout)).isdigit():
                told = int(more)
            assert more == f"ended {signal.SIGXFSZ:d}"
            turns = assert_whole(store) if store.infos() else 0
            assert told == turns
    assert turns > 3


def test_what_a_killed_process_left_of_a_deleted_session_does_not_come_back(store: Store) -> None:
    with child(SAVE_FOR_EVER, str(store.folder)) as process:
        order(process, 0, 100_000)
        while not line(process.stdout).startswith("ended"):
            pass
    assert (store.folder / "work.nazx-journal").exists()
    (store.folder / "work.nazx").unlink()
    with store.open("work", create=True) as file:
        assert file.load(small_tokenizer(), MODEL) is None
        file.save({"main": full_state()}, "main", (), MODEL)
    assert_same(main_of(store), full_state())
    assert [path.name for path in store.folder.iterdir()] == ["work.nazx"]


def test_a_session_open_elsewhere_is_told_with_the_process(store: Store) -> None:
    with child(HOLD, str(store.folder)) as process:
        assert line(process.stdout) == "saved"
        with pytest.raises(NazxError, match=f"work is open in another process .pid {process.pid}"):
            store.open("work", create=True)
        with pytest.raises(NazxError, match="open in another process"):
            store.remove("work")
        with store.open("other", create=True) as file:
            with pytest.raises(NazxError, match="open in another process"):
                file.save_as("work")
            with pytest.raises(UsageError, match="open here already"):
                store.open("other", create=True)
        assert store.running() == [("work", process.pid)]
        (info,) = store.infos()
        assert (info.open_by, info.problem, info.turns) == (process.pid, "", 2)
        process.communicate("\n")
    assert store.running() == []
    assert store.infos()[0].open_by is None
    assert_same(main_of(store), full_state())


def test_a_killed_process_holds_nothing(store: Store) -> None:
    with child(HOLD, str(store.folder)) as process:
        assert line(process.stdout) == "saved"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert store.running() == []
        assert store.infos()[0].open_by is None
        assert_same(main_of(store), full_state())


def test_of_many_processes_one_at_a_time_has_the_session(store: Store) -> None:
    """Each adds a turn to what it finds; none is lost where each waits for its time."""
    code = """
import time
from pathlib import Path
from nazx_cli.errors import NazxError
from nazx_cli.session.state import State
from nazx_cli.session.saving.store import Store
from reading_helpers import small_tokenizer
from store_helpers import MODEL, turn_of
left, tokenizer = 4, small_tokenizer(300)
while left:
    try:
        file = Store(Path(sys.argv[1])).open("work", create=True)
    except NazxError as error:
        assert "open in another process" in error.message, error
        time.sleep(0.01)
        continue
    with file:
        saved = file.load(tokenizer, MODEL)
        state = saved.branches["main"] if saved else State()
        turn = turn_of(len(state.history.turns))
        file.save({"main": State((), state.history.with_turn(turn))}, "main", (), MODEL)
    left -= 1
"""
    processes = [subprocess.Popen(python(code, str(store.folder))) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert main_of(store).history.turns == tuple(turn_of(n) for n in range(8))


def test_a_full_disk_is_told_and_keeps_what_was_saved(store: Store) -> None:
    code = """
import resource
from pathlib import Path
from nazx_cli.errors import NazxError
from nazx_cli.session.state import State
from nazx_cli.session.saving.store import Store
from reading_helpers import alice_text
from store_helpers import MODEL, full_state, part_of
store = Store(Path(sys.argv[1]))
file = store.open("work", create=True)
file.save({"main": full_state()}, "main", (), MODEL)
big = State((part_of("alice.txt", alice_text()),))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 8192, hard))
try:
    file.save({"main": big}, "main", (), MODEL)
except NazxError as error:
    print(error.message)
    print(error.hint)
print(store.infos()[0].turns)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
file.save({"main": full_state(), "big": big}, "big", (), MODEL)
file.close()
"""
    done = subprocess.run(python(code, str(store.folder)), capture_output=True, text=True)
    assert done.stderr == ""
    told = done.stdout.splitlines()
    assert told[0] == "the disk fails or is full: session work could not be saved or read"
    assert "has room" in told[1]
    assert told[2] == "2"
    assert_same(main_of(store), full_state())
    assert store.infos()[0].documents == 1  # of the branch that was saved after all


def test_a_folder_that_may_only_be_read_is_listed_and_told() -> None:
    code = """
import os
from pathlib import Path
from nazx_cli.errors import NazxError
from nazx_cli.session.saving.store import Store
if os.getuid() == 0:
    os.setuid(65534)
store = Store(Path(sys.argv[1]))
(info,) = store.infos()
print(info.name, info.turns, info.problem)
for name, create in (("work", False), ("new", True)):
    try:
        store.open(name, create=create)
    except NazxError as error:
        print(error.message, "--", error.hint)
"""
    # Not tmp_path: nobody but its owner can enter that.
    folder = Path(tempfile.mkdtemp())
    try:
        with Store(folder).open("work", create=True) as file:
            file.save({"main": full_state()}, "main", (), MODEL)
        (folder / "work.nazx").chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run(python(code, str(folder)), capture_output=True, text=True)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert done.stderr == ""
    listed, *refused = done.stdout.splitlines()
    assert listed == "work 2 "
    assert len(refused) == 2
    for told in refused:
        assert told.startswith(f"cannot use {folder}") and "NAZX_HOME" in told


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "sessions")
    assert store.infos() == [] and store.running() == []
    with pytest.raises(NazxError, match="cannot use"):
        store.open("work", create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
