"""Errors that may pass are told from those of the program or the user."""

import http.client
import socket
import threading
import urllib.request

import jax
import pytest

from mdm_jax.files.faults import may_pass

Jax = jax.errors.JaxRuntimeError

PASSING = [
    OSError(28, "No space left on device"),
    TimeoutError(),
    Jax("UNAVAILABLE: Failed to send RPC to coordination service."),
    Jax("DEADLINE_EXCEEDED: Barrier timed out. Id: sealed 4"),
    Jax("ABORTED: The process was preempted"),
    Jax("INTERNAL: Gloo AllGather failed: [gloo/transport/tcp/pair.cc:538] Read error: Connection reset by peer"),
    Jax("UNKNOWN: Gloo all-reduce failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:5516"),
    Jax("INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error"),
    ValueError("UNKNOWN: Gloo AllGather failed: [gloo/transport/tcp/pair.cc:538] Read error: Connection reset by peer"),
]
LASTING = [
    ValueError("optim.lr_peak = -1: must be positive"),
    ValueError("ABORT"),
    RuntimeError("a bug"),
    Jax("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes"),
    Jax("INVALID_ARGUMENT: Gloo AllGather failed: Connection reset by peer"),
    Jax("INTERNAL: the compiler found a bug in itself"),
    KeyError("UNAVAILABLE: a key"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_a_fault_of_the_surroundings_may_pass(error) -> None:
    assert may_pass(error)


@pytest.mark.parametrize("error", LASTING, ids=str)
def test_a_fault_of_the_program_or_the_user_does_not(error) -> None:
    assert not may_pass(error)


def test_a_store_that_hangs_up_in_the_middle_may_pass() -> None:
    """The error of a real connection is no OSError: the server promises ten bytes, sends three, and is gone."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(http.client.IncompleteRead) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=60).read()
    thread.join()
    server.close()
    assert not isinstance(caught.value, OSError)
    assert may_pass(caught.value)


@pytest.mark.parametrize("module", ["gcsfs.retry", "aiohttp.client_exceptions", "google.auth.exceptions"])
def test_errors_of_stores_are_known_by_their_package(module) -> None:
    """These packages need not be installed; their exceptions derive from Exception alone, as this one does."""
    error = type("HttpError", (Exception,), {"__module__": module})("503: backend error")
    assert may_pass(error)
    wrapped = RuntimeError("not read")
    wrapped.__cause__ = error
    assert may_pass(wrapped)
