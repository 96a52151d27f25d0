"""What every test runs under: the CPU as eight devices, and types and shapes checked at each call.

Meshes of 1, 2, 4 or 8 devices come from `jax.devices()[:n]`. The eight devices are those of this process only: a
process that a test starts sees what it asks for itself (`JAX_NUM_CPU_DEVICES`).
"""

import gc
import os
import re
import signal
from importlib.metadata import version
from pathlib import Path

# Set before jax is imported, and for the processes that tests start. Without its fusion emitters XLA compiles small
# programs for a CPU in a third of the time; code that is not split into 32 parts takes less again, as there are tests
# on every core anyway. `running.workshop(as_for_users=True)` compiles as for users.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # a newer XLA ends at a flag that it does not know
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait for each other, while other tests need the cores

import jax
import jaxtyping
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell starts its background jobs with SIGINT ignored, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_num_cpu_devices", 8)

# jaxtyping's wrapper takes longer than the short functions that it wraps. So only the modules that name shapes have it,
# and those with names that they import for a type checker alone, which it leaves unchecked and beartype refuses.
PACKAGES = ("mdm_jax", "isoflop", "analysis")
BY_JAXTYPING = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for package in PACKAGES
    for path in (REPOSITORY / package).rglob("*.py")
    if path.name != "__init__.py" and re.search(r"^from jaxtyping|^if TYPE_CHECKING", path.read_text(), re.MULTILINE)
]
beartype_packages(PACKAGES, conf=BeartypeConf(claw_is_pep526=False))
jaxtyping.install_import_hook(BY_JAXTYPING, "beartype.beartype")

# What imports and collection make lives to the end, and tracing a program makes and drops thousands of objects. Without
# this and the freezing below, the garbage collector reads all of them again and again.
gc.set_threshold(10_000, 20, 20)


def pytest_collection_finish() -> None:
    """Leaves what there is before the first test out of the garbage collector's work."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Collects what the tests left. pytest does so five times after this, which would take a second each."""
    gc.collect()
    gc.collect()  # what the finalizers of the first time let go
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Executes one notebook in a kernel by default; `analysis/test_notebooks.py` runs the code of all in any case."""
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.stem != "published_gap":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> None:
    """The processes that tests start share compiled programs with each other, and none with the user."""
    session = tmp_path_factory.getbasetemp()
    shared = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session
    os.environ["MDM_JAX_CACHE"] = str(shared / "cache")


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of published data and goldens; a test that asks for it is skipped where there is none.

    Raises:
        FileNotFoundError: MDM_REFERENCE_DATA is set and is not a folder.
    """
    named = os.environ.get("MDM_REFERENCE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    if named:
        raise FileNotFoundError(f"MDM_REFERENCE_DATA={named}: not a folder; unset it, or name the reference data")
    pytest.skip(f"reference data: set MDM_REFERENCE_DATA to its folder, or put it at {folder}")
