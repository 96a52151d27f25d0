"""With libtpu and no TPU on a machine, jax looks for no TPU, unless something speaks for an accelerator."""

import importlib.util
import os
import subprocess
import sys

import pytest

OTHERS = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0") or importlib.util.find_spec("jax_plugins")
pytestmark = pytest.mark.skipif(bool(OTHERS), reason="this machine has a TPU, or jax a plugin for an accelerator")
# Imitates libtpu, which is 200 MB: jax finds the package, and its library is not asked for without a search.
LIBTPU = """
import os
os.environ.setdefault("TPU_LIBRARY_PATH", os.devnull)

def get_library_path():
    return os.devnull
"""
CASES = """
import os, pathlib, sys
import jax
from mdm_jax.devices.absent_tpu import skip_absent_tpu

def platforms():
    skip_absent_tpu()
    found = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    return found

print("nothing set:", platforms())
jax.config.update("jax_platforms", "cuda")
print("JAX_PLATFORMS:", platforms())
os.environ["TPU_WORKER_ID"] = "0"
print("TPU_WORKER_ID:", platforms())
del os.environ["TPU_WORKER_ID"]
plugins = pathlib.Path(sys.argv[1], "jax_plugins")
plugins.mkdir()
print("another plugin:", platforms())
plugins.rmdir()
skip_absent_tpu()
print(jax.devices()[0].platform)
"""


def test_only_a_machine_without_accelerators_is_left_to_its_cpus(tmp_path) -> None:
    (tmp_path / "libtpu.py").write_text(LIBTPU)
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS" and not k.startswith("TPU_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CASES, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    lines = ["nothing set: cpu", "JAX_PLATFORMS: cuda", "TPU_WORKER_ID: None", "another plugin: None", "cpu"]
    assert (done.stdout.splitlines(), done.stderr) == (lines, "")
