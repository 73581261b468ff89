"""A file system in memory that is too small, seen by one process alone (Linux)."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from entity.cli import main
from robustness.federations import Variant
from robustness.victims import forked

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_PRIVATE_ALL = (1 << 18) | (1 << 14)
PAGE = 4096


def on_small_disk(variant: Variant, folder: Path, left: int) -> int:
    """Begin a run or go on with it where only so many bytes are left; return its exit code.

    What it leaves behind is copied to `folder`.
    """
    disk = folder.with_name("disk")
    _mount(disk, _used(folder) + left)
    there = disk / "run"
    if folder.exists():
        shutil.copytree(folder, there)
    code = _in_child(lambda: main(variant.resume(there)))
    if there.exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(there, folder)
    return code


@cache
def can_mount() -> bool:
    """Whether this system lets a process have such a file system."""
    return sys.platform == "linux" and forked(_try_mount, (), Path("/none")).code == 0


def _try_mount() -> int:
    _mount(Path("/tmp"), PAGE)
    return 0


def _mount(place: Path, size: int) -> None:
    """Mount a file system of a size in a new namespace of this process.

    Raises
    ------
    OSError
        Where that is not allowed.
    """
    place.mkdir(exist_ok=True)
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUSER))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        Path("/proc/self", name).write_text(text)
    _checked(libc.mount(None, b"/", None, MS_PRIVATE_ALL, None))
    options = f"size={max(size, PAGE)}".encode()
    _checked(libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _used(folder: Path) -> int:
    """Return the bytes that a folder takes, in whole pages."""
    sizes = [path.lstat().st_size for path in folder.rglob("*")]
    return sum(-(-size // PAGE) * PAGE + PAGE for size in sizes)


def _in_child(work: Callable[[], int]) -> int:
    """Do something in a child of this process, so that this one lives whatever becomes of it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
