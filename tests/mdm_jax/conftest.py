"""What several files of tests ask for: runs as processes of their own, a mesh, and quick compilation."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Workshop, workshop
from tiny_runs import on_mesh, quick_compilation

from mdm_jax.spec import Family


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Workshop:
    return workshop(tmp_path_factory)


@pytest.fixture(scope="session")
def whole(shop) -> Path:
    """The runs' folder of an ARM that nothing disturbed."""
    return shop.undisturbed(shop.spec(Family.ARM))


@pytest.fixture
def sigterm_handler() -> Iterator[None]:
    """The handler of SIGTERM is the earlier one again when the test has ended."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    with quick_compilation():
        yield


@pytest.fixture(scope="module")
def one_device(compiled_quickly) -> Iterator[None]:
    """Programs run on a mesh of one device, and are compiled quickly."""
    with on_mesh():
        yield
