"""A seal that all processes of a run make together: each hashes the files that it has written itself.

The processes exchange the hashes through jax's coordination service and not through their devices. So a thread can do
it while the devices train.
"""

import json

import jax
from jax._src import distributed

from mdm_jax.files.storage import Kind, Path, kind
from mdm_jax.train.seal import Identity, files_below, hashes_of, seal_step

MOST_MILLISECONDS = 1_200_000
"""The time in which every process must have hashed its files. Orbax allows the same time for the writing."""
SEALED, FAILED = "sealed", "failed"


def seal_together(folder: Path, step: int, identity: Identity, number: int) -> None:
    """Seals a step that all processes have written. When it returns, the step survives a power cut.

    A process hashes the files in orbax's folder of its number. The first process hashes all others, and those that
    another process does not see, and writes the seal.

    Args:
        folder: the step's folder.
        step: the step.
        identity: the run and the data that the seal names.
        number: the number of this save, the same on every process and never used before.

    Raises:
        OSError: no space or no access, here or on the first process.
        jax.errors.JaxRuntimeError: another process does not answer.
    """
    if jax.process_count() == 1:
        seal_step(folder, step, identity)
        return
    client, key = distributed.global_state.client, f"mdm_jax/seal/{number}"
    assert client is not None, "several processes are connected by jax's coordination service"
    if jax.process_index() == 0:
        outcome = FAILED
        try:
            others = range(1, jax.process_count())
            answers = [client.blocking_key_value_get(f"{key}/{i}", MOST_MILLISECONDS) for i in others]
            known = {name: sha256 for answer in answers for name, sha256 in json.loads(answer).items()}
            for i in others:
                client.key_value_delete(f"{key}/{i}")  # the service would keep the hashes until the run ends
            seal_step(folder, step, identity, known)
            outcome = SEALED
        finally:
            client.key_value_set(f"{key}/outcome", outcome)
    else:
        hashes = hashes_of(folder, own_files(folder, jax.process_index()))
        client.key_value_set(f"{key}/{jax.process_index()}", json.dumps(hashes))
        if client.blocking_key_value_get(f"{key}/outcome", MOST_MILLISECONDS) != SEALED:
            raise OSError("the first process could not seal the step: see its own message")


def own_files(folder: Path, index: int) -> list[str]:
    """Names of the files in a step's folder that process `index` has written; none if the folder is not seen yet."""
    if kind(folder) is not Kind.FOLDER:  # another host has just given it this name, and a network disk shows it late
        return []
    return [name for name in files_below(folder) if f"ocdbt.process_{index}" in name.split("/")]
