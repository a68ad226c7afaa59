"""Folders and open files that this user alone, or the administrator, can have written.

Code that is loaded from a place that others can write is theirs to choose. On Windows, where a
person's folders are closed to others by default and modes say nothing, nothing is looked at.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # as the system itself follows


def private_folder(folder: Path) -> Path:
    """Where ``folder`` really lies; ``OSError`` where others decide what lies in it, or where.

    It must be this user's own. Folders and links on the way may be the administrator's too, and
    those folders open to all where, as in /tmp, nobody may rename what is another's.
    """
    if os.name != "posix":
        return folder.resolve(strict=True)
    at, waiting, links = Path("/"), list(reversed(folder.absolute().parts[1:])), 0
    _check(at.lstat(), at, on_the_way=True)
    while waiting:
        name = waiting.pop()
        if name == "..":
            at = at.parent
            continue
        status = (at / name).lstat()
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(f"{folder} leads through too many links")
            _check(status, at / name, on_the_way=True)
            target = (at / name).readlink()
            waiting += [part for part in reversed(target.parts) if part != "/"]
            at = Path("/") if target.is_absolute() else at
            continue
        at /= name
        _check(status, at, on_the_way=bool(waiting))
    return at


def check_file(descriptor: int, path: Path) -> None:
    """``OSError`` unless the open file is a regular one of this user's that no other can write."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no regular file")
    if os.name == "posix":
        _check(status, path)


def _check(status: os.stat_result, path: Path, *, on_the_way: bool = False) -> None:
    if status.st_uid != os.geteuid() and not (on_the_way and status.st_uid == 0):
        raise OSError(f"{path} belongs to another user")
    if on_the_way and (stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX):
        return
    others = status.st_mode & _OTHERS_WRITE
    if others and not (others == stat.S_IWGRP and _is_own_group(status.st_gid)):
        raise OSError(f"{path} can be written by others")


def _is_own_group(gid: int) -> bool:
    """Whether a group is this user's alone, as many systems make one for each user."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    own = gid == user.pw_gid and group.gr_name == user.pw_name
    return own and set(group.gr_mem) <= {user.pw_name}
