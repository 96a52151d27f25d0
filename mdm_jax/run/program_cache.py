"""A cache of compiled programs on disk, with a checksum for each. A tiny run takes longer to compile than to train.

jax's own persistent cache does not check its entries. A flipped bit would crash a run or change its loss, and anybody
who can write to the folder could run code. Here the folder is writable for the user alone, and an entry begins with
the SHA-256 of its name and its program. An entry is read into memory once and verified there, so it cannot change
between the check and the use. A damaged entry is removed, and its program is compiled again. A new entry is written to
a temporary file and renamed, so that a killed run leaves no half-written entry.

jax has no public interface for another cache, so `_serve` replaces jax's `get_file_cache`. If a version of jax changes
that function or the cache's interface, runs compile all programs.
"""

import functools
import hashlib
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import jax

from mdm_jax.files.storage import as_path, is_local
from mdm_jax.files.user_cache import cache_folder, private_folder

FOLDER = "programs"
SUFFIX = ".program"
SEAL_BYTES = hashlib.sha256().digest_size
MOST_BYTES = 1 << 30
"""Maximum size of the folder, unless the user has set `JAX_COMPILATION_CACHE_MAX_SIZE`."""


class SealedPrograms:
    """Programs by key in a folder. When the folder is full, the least recently used entries are deleted.

    Attributes:
        read: number of programs read from the folder.
        damaged: number of entries that did not match their seal and were removed.
    """

    read_before = 0
    """Number of programs that earlier runs of this process have read, and that it may use again."""

    def __init__(self, folder: pathlib.Path, most_bytes: int = MOST_BYTES):
        self.folder, self._most_bytes = folder, most_bytes
        self.read = self.damaged = 0
        self._anew = False

    @property
    def in_use(self) -> int:
        """Number of programs from the folder that this process may use: its earlier runs have read some of them."""
        return SealedPrograms.read_before + self.read

    def compile_anew(self) -> None:
        """Reads no program any more; each newly compiled program replaces its entry."""
        self._anew, self.read, SealedPrograms.read_before = True, 0, 0
        jax.clear_caches()

    def get(self, key: str) -> bytes | None:
        """The program; None if it must be compiled, because its entry is absent or does not match its seal."""
        path = self._path(key)
        if self._anew:
            return None
        try:
            entry = path.read_bytes()
            seal, program = entry[:SEAL_BYTES], entry[SEAL_BYTES:]
            if seal != _seal(path.name, program):
                self.damaged += 1
                path.unlink()
                return None
            os.utime(path)
        except OSError:  # another run has deleted or replaced the entry, or the disk cannot give it
            return None
        self.read += 1
        return program

    def put(self, key: str, value: bytes) -> None:
        """Writes the program, if the disk allows; otherwise the next run compiles it again."""
        path = self._path(key)
        with suppress(OSError):
            handle, partial = tempfile.mkstemp(prefix=".", suffix=SUFFIX, dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_seal(path.name, value) + value)
                os.replace(partial, path)
            except BaseException:
                os.unlink(partial)
                raise
            self._make_room()

    def _make_room(self) -> None:
        """Deletes the least recently used files until the folder is small enough; killed runs' partial files count."""
        entries = [entry for entry in os.scandir(self.folder) if entry.name.endswith(SUFFIX)]
        held = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
        excess = sum(size for _, size, _ in held) - self._most_bytes
        for _, size, path in held:
            if excess <= 0:
                break
            os.unlink(path)
            excess -= size

    def _path(self, key: str) -> pathlib.Path:
        """The entry's file. It names the CPU, which jax's key does not, because machines may share a disk."""
        return self.folder / f"{key}-{_cpu_digest()}{SUFFIX}"


def _seal(name: str, program: bytes) -> bytes:
    """The SHA-256 of name and program, so that an entry that is renamed does not match."""
    return hashlib.sha256(name.encode() + b"\0" + program).digest()


@functools.cache
def _cpu_digest() -> str:
    """Eight hex digits for the kind of this machine's CPU, whose instructions a program for CPUs may contain."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        kind = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        kind = [platform.node()]
    return hashlib.sha256("\n".join([platform.machine(), *kind]).encode()).hexdigest()[:8]


@contextmanager
def program_cache(say: Callable[[str], None]) -> Iterator[SealedPrograms | None]:
    """The cache for programs that are compiled inside; None if it is not used.

    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=0` turns the cache off. For a
    folder in a bucket, or a run of several processes, jax's own settings apply instead.
    """
    named, size = _jax_setting("jax_compilation_cache_dir"), _jax_setting("jax_compilation_cache_max_size")
    folder = as_path(named) if named else cache_folder() / FOLDER
    if not _jax_setting("jax_enable_compilation_cache") or not is_local(folder) or jax.process_count() > 1:
        yield None
        return
    with ExitStack() as stack:
        try:
            programs = SealedPrograms(private_folder(folder), size if size >= 0 else MOST_BYTES)
            stack.enter_context(_serve(programs))
        except (ValueError, OSError, ImportError, AttributeError, TypeError) as error:
            say(f"no compiled programs are kept: {error}")
            programs = None
            stack.enter_context(_jax_settings(jax_enable_compilation_cache=False))
        try:
            yield programs
        finally:
            SealedPrograms.read_before += programs.read if programs is not None else 0
        if programs is not None and programs.damaged:
            say(f"{folder}: programs that were damaged, and were compiled anew: {programs.damaged}")


@contextmanager
def _serve(programs: SealedPrograms) -> Iterator[None]:
    """Makes jax use `programs` as its cache.

    Raises:
        ImportError, AttributeError, TypeError: the cache of this version of jax has another interface.
    """
    from jax._src import compilation_cache
    from jax._src.compilation_cache_interface import CacheInterface
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    class Cache(CacheInterface):
        _path = programs.folder

        def get(self, key: str) -> bytes | None:  # type: ignore[override]  # jax does not declare its type
            return programs.get(key)

        def put(self, key: str, value: bytes) -> None:
            programs.put(key, value)

    cache, of_jax = Cache(), compilation_cache.get_file_cache
    compilation_cache.get_file_cache = lambda path: (cache, path)
    reset_cache()
    try:
        with _jax_settings(
            jax_compilation_cache_dir=str(programs.folder),
            jax_persistent_cache_min_compile_time_secs=0.0,
            jax_persistent_cache_enable_xla_caches="none",  # XLA would write its own files there, without seals
        ):
            yield
    finally:
        compilation_cache.get_file_cache = of_jax
        reset_cache()


def _jax_setting(name: str) -> Any:
    return getattr(jax.config, name)


@contextmanager
def _jax_settings(**values: object) -> Iterator[None]:
    """Changes settings of jax inside, and restores them afterwards."""
    before = {name: _jax_setting(name) for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
