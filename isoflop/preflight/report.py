"""`preflight.json`: the verdict on each shape, written as soon as it is known and reused by the next preflight."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from isoflop.preflight.compile import Compiled, Setting, program_of
from isoflop.preflight.topology import Topology
from isoflop.preflight.verdict import Verdict, bound
from mdm_jax import __version__
from mdm_jax.files.storage import as_path, is_file, write_atomic
from mdm_jax.spec import Remat, RunSpec, to_json
from mdm_jax.spec.validation import build, to_dict

REPORT_FILE = "preflight.json"
SCHEMA_VERSION = 1


class Report:
    """The report of one preflight, which keeps what an earlier preflight has compiled for the same shapes.

    Attributes:
        path: the file.
    """

    def __init__(self, directory: str, topology: Topology, on_host: bool, runs: Iterable[RunSpec]) -> None:
        """Reads an existing report if it is of the same slice and versions.

        Args:
            runs: one run of each shape, in order.

        Raises:
            ValueError: the file is not the report of a preflight.
        """
        self.path, self._topology = as_path(directory) / REPORT_FILE, topology
        self._head = {
            "schema_version": SCHEMA_VERSION,
            "topology": topology.name,
            "compiler": "XLA:CPU of this host, whose memory figures are not the TPU's" if on_host else "libtpu",
            "versions": {"mdm-jax": __version__, **{name: _version(name) for name in ("jax", "jaxlib", "libtpu")}},
            "limit_bytes": None if on_host else topology.chip.hbm_bytes,
        }
        self._shapes: dict[str, dict[str, Any] | None] = dict.fromkeys(map(_shape_hash, runs))
        self._answers: dict[str, dict[Setting, Compiled]] = {}
        if is_file(self.path):
            self._read(self.path.read_text())

    def __len__(self) -> int:
        """The number of shapes in the file."""
        return sum(shape is not None for shape in self._shapes.values())

    def answer(self, run: RunSpec, setting: Setting) -> Compiled | None:
        """An earlier preflight's result for the run's shape in this setting; None if there is none."""
        return self._answers.get(_shape_hash(run), {}).get(setting)

    def add(self, verdict: Verdict) -> None:
        """Writes the report with the verdict on one more shape.

        Raises:
            OSError: the folder is not writable or the disk is full.
        """
        name = _shape_hash(verdict.runs[0])
        self._shapes[name] = {"shape": name, **_entry(verdict, self._topology)}
        tree = self._head | {"shapes": [shape for shape in self._shapes.values() if shape]}
        write_atomic(self.path, json.dumps(tree, indent=1) + "\n")

    def _read(self, text: str) -> None:
        try:
            tree = json.loads(text)
            if any(tree.get(name) != value for name, value in self._head.items()):
                return
            for shape in tree["shapes"]:
                if shape["shape"] in self._shapes:
                    self._shapes[shape["shape"]] = shape
                    answers = [_compiled(answer) for answer in shape["tried"]]
                    self._answers[shape["shape"]] = {one.setting: one for one in answers if not one.failed}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.path}: not the report of a preflight ({error}): delete it") from None


def _shape_hash(run: RunSpec) -> str:
    """SHA-256 (hex) of what the run's program is compiled from, except the setting."""
    return hashlib.sha256(to_json(Setting(Remat.NONE, 1).of(program_of(run))).encode()).hexdigest()


def _version(package: str) -> str | None:
    """The package's version; None if it is not installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _entry(verdict: Verdict, topology: Topology) -> dict[str, Any]:
    """The verdict as plain JSON types, with the roofline of every setting that compiled."""
    run = verdict.runs[0]

    def plain(answer: Compiled | None) -> dict[str, Any] | None:
        if answer is None:
            return None
        if answer.refused or answer.failed:
            return to_dict(answer) | {"roofline": None}
        line = bound(run, topology, answer)
        numbers = {"seconds": line.seconds, "binds": line.binds, "mfu": line.mfu}
        return to_dict(answer) | {"roofline": to_dict(line) | numbers}

    return {
        "runs": [one.run_id for one in verdict.runs],
        "family": run.family.value,
        "size": run.cell.size,
        "global_batch": run.optim.global_batch,
        "seq_len": run.data.seq_len,
        "mesh": run.hardware.mesh,
        "fits": verdict.fits,
        "planned": plain(verdict.planned),
        "best": plain(verdict.best),
        "nearest": plain(verdict.nearest),
        "tried": [plain(answer) for answer in verdict.tried],
    }


def _compiled(answer: Mapping[str, Any]) -> Compiled:
    """The reverse of `_entry`, for one setting."""
    return build(Compiled, {name: value for name, value in answer.items() if name != "roofline"})
