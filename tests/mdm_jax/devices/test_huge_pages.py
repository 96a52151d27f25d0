"""Commands that train ask for huge pages, once, and keep what the user asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdm_jax.devices.huge_pages import TUNABLE, VARIABLE, with_huge_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tunable is glibc's, on Linux")
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MIB = 1 << 20


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without the user's tunables, and with the changes."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE} | changes


def output(code: str, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_what_the_user_asks_for_stays():
    assert with_huge_pages({"A": "b"}) == {"A": "b", VARIABLE: f"{TUNABLE}=1"}
    other = "glibc.malloc.arena_max=1"
    assert with_huge_pages({VARIABLE: other}) == {VARIABLE: f"{other}:{TUNABLE}=1"}
    for own in (f"{TUNABLE}=0", f"{other}:{TUNABLE}=2", f"{TUNABLE}=1"):
        assert with_huge_pages({VARIABLE: own}) == {VARIABLE: own}


def test_a_command_starts_again_once_in_the_same_process_with_its_arguments():
    code = f"""
import os, sys
from mdm_jax.devices.huge_pages import restart_with_huge_pages
print(os.getpid(), os.environ.get("{VARIABLE}"), sys.argv[1:])
restart_with_huge_pages()
print("goes on")
"""
    first, second, third = output(code, environment(), "a b", "--c").splitlines()
    pid, arguments = first.split()[0], "['a b', '--c']"
    assert (first, second, third) == (f"{pid} None {arguments}", f"{pid} {TUNABLE}=1 {arguments}", "goes on")
    off = f"{TUNABLE}=0"
    assert output(code, environment(**{VARIABLE: off}), "a").splitlines()[1:] == ["goes on"]


@pytest.mark.parametrize("as_script", [False, True])
def test_a_command_that_trains_starts_itself_again_and_ends_as_before(as_script, tmp_path):
    """Python reads the module `sitecustomize` at each start."""
    starts, script = tmp_path / "starts", tmp_path / "mdm-train"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nwith open({str(starts)!r}, 'a') as file:\n    print(os.environ.get('{VARIABLE}'), file=file)\n"
    )
    script.write_text("import sys\nfrom mdm_jax.main import main\nsys.exit(main())\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *([str(script)] if as_script else ["-m", "mdm_jax.main"]), "--config", "absent.py"]
    done = subprocess.run(command, env=environment(PYTHONPATH=path), capture_output=True, text=True)
    assert starts.read_text().split() == ["None", f"{TUNABLE}=1"]
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "absent.py" in done.stderr


@pytest.mark.skipif(
    not MODE.exists() or "[madvise]" not in MODE.read_text(), reason="the kernel does not give huge pages on request"
)
def test_large_arrays_lie_on_huge_pages():
    code = f"""
import numpy as np
array = np.ones({64 * MIB}, np.uint8)
sizes = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if ":" in line)
print(sizes["AnonHugePages:"])
"""
    env = {name: value for name, value in environment().items() if not name.startswith("NUMPY_MADVISE")}
    off = output(code, env | {"NUMPY_MADVISE_HUGEPAGE": "0"})
    on = output(code, with_huge_pages(env) | {"NUMPY_MADVISE_HUGEPAGE": "0"})
    assert int(off) * 1024 < MIB
    assert int(on) * 1024 > 60 * MIB
