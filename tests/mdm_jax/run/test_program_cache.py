"""Compiled programs on disk: damaged ones are never run, and failures with cached ones are tried again without."""

import abc
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache
from jax._src import compilation_cache_interface as interface
from running import Workshop, assert_same, ended, outcome, result, wait_until

from mdm_jax.files.results import Status
from mdm_jax.files.user_cache import cache_folder, private_folder
from mdm_jax.run.program_cache import SealedPrograms, program_cache
from mdm_jax.run.second_try import CRASH_FILE
from mdm_jax.spec import Family, RunSpec

FLIPS = 16
X_BD = np.random.default_rng(0).standard_normal((8, 8), dtype=np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder that keeps the programs of this test."""
    monkeypatch.setenv("MDM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "programs"


@pytest.fixture
def programs(folder) -> Iterator[SealedPrograms]:
    with program_cache(print) as found:
        assert found is not None
        yield found
    jax.clear_caches()


def computed() -> bytes:
    """The bits of a small function, whose programs are compiled or come from the cache, as in a new process."""
    jax.clear_caches()
    out = jax.jit(lambda x: jnp.tanh(x @ x.T).sum(axis=0))(X_BD)
    return np.asarray(out).tobytes()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.program"))


def flip(path: Path, draw: random.Random) -> None:
    """Flips one bit at a random place."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def test_programs_come_from_the_users_own_folder(programs, folder, capsys) -> None:
    first, held = computed(), entries(folder)
    assert (programs.read, programs.damaged, len(held) >= 1) == (0, 0, True)
    assert computed() == first
    assert programs.read == len(held)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(folder.iterdir()) == held
    assert capsys.readouterr().out == ""


def test_no_flipped_bit_is_run(programs, folder) -> None:
    whole, draw = computed(), random.Random(0)
    for number in range(1, FLIPS + 1):
        flip(draw.choice(entries(folder)), draw)
        assert computed() == whole
        assert programs.damaged == number
    before = programs.read
    assert computed() == whole
    assert (programs.damaged, programs.read - before) == (FLIPS, len(entries(folder)))


def test_programs_that_an_earlier_run_has_read_count_until_all_are_compiled_anew(folder, monkeypatch) -> None:
    """A process that executes several runs keeps the programs of the first; a bad one may make the second fail."""
    monkeypatch.setattr(SealedPrograms, "read_before", 0)
    for read in (False, True):
        with program_cache(print) as first:
            computed()
        assert first is not None
        assert bool(first.read) is read
    with program_cache(print) as second:
        assert second is not None
        assert (second.read, second.in_use) == (0, first.read)
        second.compile_anew()
        computed()
        assert (second.read, second.in_use) == (0, 0)
    jax.clear_caches()


@pytest.mark.parametrize("bad", [b"", b"short", bytes(5000)])
def test_what_is_no_entry_is_compiled(programs, folder, bad: bytes) -> None:
    whole = computed()
    for path in entries(folder):
        path.write_bytes(bad)
    assert computed() == whole
    assert (programs.damaged, programs.read) == (len(entries(folder)), 0)


def test_an_entry_does_not_match_under_another_name(tmp_path) -> None:
    kept = SealedPrograms(private_folder(tmp_path / "kept"))
    kept.put("a", b"program a")
    kept.put("b", b"program b")
    a, b = entries(kept.folder)
    a.write_bytes(b.read_bytes())
    assert (kept.get("a"), kept.get("b"), kept.damaged) == (None, b"program b", 1)


def test_the_folder_stays_within_its_size_and_keeps_what_is_used(tmp_path) -> None:
    kept = SealedPrograms(private_folder(tmp_path / "kept"), most_bytes=500)
    (kept.folder / ".killed.program").write_bytes(bytes(100))
    (kept.folder / "of-another").write_bytes(bytes(1000))
    os.utime(kept.folder / ".killed.program", (1, 1))
    for number, key in enumerate("abcde"):
        kept.put(key, bytes(68))
        (path,) = kept.folder.glob(f"{key}-*")
        os.utime(path, (number + 2, number + 2))
    assert kept.get("a") == bytes(68)
    kept.put("f", bytes(68))
    assert [key for key in "abcdef" if kept.get(key) is not None] == list("acdef")
    assert sorted(path.name[0] for path in kept.folder.iterdir()) == list("acdefo")


def test_programs_that_the_disk_does_not_take_are_compiled_again(tmp_path) -> None:
    kept = SealedPrograms(private_folder(tmp_path / "kept"))
    kept.folder.rmdir()
    kept.put("a", b"program")
    assert kept.get("a") is None


def test_folders_that_are_not_the_users_alone_are_refused(tmp_path) -> None:
    (tmp_path / "link").symlink_to(private_folder(tmp_path / "own"))
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o770)
    (tmp_path / "file").write_text("")
    for name, said in {"link": "no link", "nowhere": "no link", "file": "a folder", "open": "closed"}.items():
        with pytest.raises(ValueError, match=f"/{name}'.*must be .*{said}"):
            private_folder(tmp_path / name)
    another = Path("/usr")
    if os.getuid() == 0:
        another = tmp_path / "own"
        os.chown(another, 12345, -1)
    with pytest.raises(ValueError, match="your own"):
        private_folder(another)


def test_a_refused_folder_costs_the_cache_and_not_the_run(folder) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    said: list[str] = []
    with program_cache(said.append) as programs:
        computed()
    assert programs is None
    assert "closed to other users" in "".join(said)
    assert not entries(folder)


class Further(interface.CacheInterface):
    """What a later jax may ask of a cache."""

    @abc.abstractmethod
    def delete(self, key: str) -> None: ...


def test_a_jax_with_another_cache_costs_the_cache_and_not_the_run(folder, monkeypatch) -> None:
    def compiles(change: Callable[[pytest.MonkeyPatch], None]) -> str:
        said: list[str] = []
        with monkeypatch.context() as patch:
            change(patch)
            with program_cache(said.append) as programs:
                assert programs is None
                computed()
        assert not list(folder.iterdir())
        return "".join(said)

    assert "get_file_cache" in compiles(lambda patch: patch.delattr(compilation_cache, "get_file_cache"))
    assert "delete" in compiles(lambda patch: patch.setattr(interface, "CacheInterface", Further))


@contextmanager
def setting(name: str, value: object) -> Iterator[None]:
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    yield
    jax.config.update(name, before)


def test_the_user_may_turn_the_cache_off_or_name_another_folder(folder, tmp_path) -> None:
    with setting("jax_enable_compilation_cache", False), program_cache(print) as programs:
        assert programs is None
    with setting("jax_compilation_cache_dir", "gs://bucket/cache"), program_cache(print) as programs:
        assert programs is None  # jax's own, and the bucket's checksums
    with setting("jax_compilation_cache_dir", str(tmp_path / "named")), program_cache(print):
        computed()
    assert entries(tmp_path / "named")
    assert not folder.exists()


def test_the_cache_folder_is_where_the_user_says(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MDM_JAX_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("MDM_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/mdm-jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/mdm-jax"


@dataclasses.dataclass(frozen=True)
class Copied:
    """A run that was done without disturbance, and a copy of the programs that it and other runs have compiled."""

    shop: Workshop
    spec: RunSpec
    whole: dict
    folder: Path

    def start(self, runs: Path) -> subprocess.Popen:
        """The run once more, with the copied programs."""
        return self.shop.start(self.spec, runs, environment=cache_at(self.folder))


def cache_at(folder: Path) -> dict[str, str]:
    return {"JAX_COMPILATION_CACHE_DIR": str(folder)}


@pytest.fixture
def copied(shop, tmp_path) -> Copied:
    spec = shop.spec(Family.ARM)
    whole = outcome(shop.undisturbed(spec), spec)
    shutil.copytree(shop.cache, tmp_path / "programs")
    return Copied(shop, spec, whole, tmp_path / "programs")


def steps(folder: Path) -> dict[str, bytes]:
    """The programs with the name of train steps, by key."""
    keys = [path.name.rpartition("-")[0] for path in folder.glob("jit_train_step-*")]
    return {key: SealedPrograms(folder).get(key) or b"" for key in keys}


@pytest.mark.slow
def test_a_divergence_of_cached_programs_is_not_believed(copied, tmp_path) -> None:
    """The bad program is the step of a run whose weights explode, rightly sealed in the place of other runs' steps."""
    optim = dataclasses.replace(copied.spec.optim, weight_decay=3e9, clip_norm=1e9)  # no other test has it
    wild, folder = dataclasses.replace(copied.spec, optim=optim), tmp_path / "wild"
    assert copied.shop.run(wild, tmp_path / "diverged", environment=cache_at(folder)).code == 3
    good, bad = steps(copied.folder), steps(folder)
    (program,) = (bad[key] for key in bad.keys() - good.keys())
    for key in good.keys() - bad.keys():
        SealedPrograms(copied.folder).put(key, program)
    end = ended(copied.start(tmp_path))
    assert end.code == 0, end.said
    assert "diverged: loss or gradient not finite at step" in end.said
    assert "once more, with all of them compiled anew" in end.said
    assert_same(outcome(tmp_path, copied.spec), copied.whole)
    assert result(tmp_path, copied.spec).attempts == 1
    mended = [key for key, found in steps(copied.folder).items() if key not in bad and found != program]
    assert len(mended) == 1  # for the runs to come


@pytest.mark.slow
def test_after_a_crash_every_program_is_compiled_anew(copied, tmp_path) -> None:
    process, crash = copied.start(tmp_path), tmp_path / copied.spec.run_id / CRASH_FILE
    wait_until(crash.exists, process)
    time.sleep(0.1)
    process.send_signal(signal.SIGSEGV)
    assert ended(process).code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in crash.read_text()
    before = {path: path.stat().st_mtime_ns for path in entries(copied.folder)}
    end = ended(copied.start(tmp_path))
    assert end.code == 0, end.said
    assert "an earlier attempt crashed: all programs are compiled anew" in end.said
    anew = [path.name for path in before if path.stat().st_mtime_ns > before[path]]
    assert sum(name.startswith("jit_train_step-") for name in anew) == 1
    assert sum(name.startswith("jit__losses-") for name in anew) == 1
    assert_same(outcome(tmp_path, copied.spec), copied.whole)


@pytest.mark.slow
def test_no_flipped_bit_reaches_a_run(copied, tmp_path) -> None:
    shutil.rmtree(copied.folder)  # of this run alone
    assert ended(copied.start(tmp_path / "first")).code == 0
    draw, loss = random.Random(1), copied.whole["result"]["loss"]
    for number in range(FLIPS):
        flip(draw.choice(entries(copied.folder)), draw)
        runs = tmp_path / str(number)
        end = ended(copied.start(runs))
        assert end.code == 0, end.said
        assert "compiled anew: 1" in end.said
        assert (result(runs, copied.spec).status, result(runs, copied.spec).loss) == (Status.OK, loss)
