"""A labelled task from any genome without annotation: real sequences against decoys made from real ones.

    python -m mdm_jax.tasks.classify.decoys genome.fna.gz --kind shuffled --out data/decoys

A decoy is another piece of the genome, `shuffled` or `reversed`. A shuffled decoy is drawn from all sequences with the
same first letter and the same counts of pairs of neighbouring letters (Altschul and Erickson 1985), so only longer
patterns tell it from a real one. A reversed decoy is read backwards without complement, and has the same counts of
letters.

The genome is cut into windows. Each window is used once, as a real sequence or as a decoy, and the two are equally
frequent. Windows for train.fasta lie in the regions that `mdm_jax.data.prepare` trains on with the same
--validation-fraction, and windows for test.fasta in its validation regions. So no model has been trained on the letters
of the test.
"""

import argparse
import enum
import hashlib
import heapq
import itertools
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from mdm_jax.command import DONE, exit_code, new_parser
from mdm_jax.data.sources.fasta import REGION_LETTERS
from mdm_jax.data.sources.pieces import labelled
from mdm_jax.files.storage import as_path, make_folder, write_atomic
from mdm_jax.spec import CorpusSource, CorpusSpec, DataSpec
from mdm_jax.spec.validation import require

MOST_SEED = (1 << 31) - 1


class Decoy(enum.StrEnum):
    """How a decoy is made from a real sequence."""

    SHUFFLED = "shuffled"
    REVERSED = "reversed"


def dinucleotide_shuffle(text: str, draw: np.random.Generator) -> str:
    """A random text with the same first letter and the same counts of pairs of neighbouring letters, uniformly drawn.

    The text is a walk over its letters. Each letter but the last one of the text gets a random last step. If these
    steps lead from everywhere to the end, all other steps may be taken in any order; otherwise they are drawn again.
    """
    if len(text) < 3:
        return text
    steps: dict[str, list[str]] = {letter: [] for letter in text}
    for here, there in itertools.pairwise(text):
        steps[here].append(there)
    left = [letter for letter in steps if letter != text[-1]]
    while True:
        last = {letter: int(draw.integers(len(steps[letter]))) for letter in left}
        if all(_reaches_end(letter, {a: steps[a][i] for a, i in last.items()}) for letter in left):
            break
    order = {}
    for letter, targets in steps.items():
        kept = [target for i, target in enumerate(targets) if i != last.get(letter)]
        order[letter] = [kept[i] for i in draw.permutation(len(kept))]
        order[letter] += [targets[last[letter]]] if letter in last else []
    walk, taken = [text[0]], dict.fromkeys(steps, 0)
    for _ in text[1:]:
        here = walk[-1]
        walk.append(order[here][taken[here]])
        taken[here] += 1
    return "".join(walk)


def _reaches_end(letter: str, last: dict[str, str]) -> bool:
    """Whether the last steps lead from a letter to one without a last step."""
    for _ in range(len(last) + 1):
        if letter not in last:
            return True
        letter = last[letter]
    return False


def decoy(text: str, kind: Decoy, draw: np.random.Generator) -> str:
    """A decoy made from a real sequence."""
    return text[::-1] if kind is Decoy.REVERSED else dinucleotide_shuffle(text, draw)


def windows(path: str, length: int, fraction: float) -> Iterator[tuple[str, bool]]:
    """The windows of a genome without N, and whether each lies in a validation region.

    Raises:
        ValueError: the file is absent, or is no FASTA of nucleotides.
    """
    for region in labelled(CorpusSpec(CorpusSource.FASTA, path), fraction):
        for start in range(0, len(region.text) - length + 1, length):
            window = region.text[start : start + length]
            if "N" not in window:
                yield window, region.validation


def examples(
    path: str, kind: Decoy, length: int, train: int, test: int, fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """The records of train.fasta and of test.fasta.

    Args:
        path: the genome.
        kind: how decoys are made.
        length: letters of a window.
        train: number of sequences to train on.
        test: number of sequences to test on.
        fraction: share of the validation regions.
        seed: chooses the windows and draws the decoys.

    Raises:
        ValueError: see `windows`; or the genome has too few windows.
    """
    found = []
    for validation, count, name in ((False, train, "--train"), (True, test, "--test")):
        own = (window for window, side in windows(path, length, fraction) if side is validation)
        chosen = heapq.nsmallest(count, own, key=lambda window: hashlib.sha256(f"{seed}/{window}".encode()).digest())
        held = f"at most the {len(chosen)} windows of {length} letters in these regions of {path}"
        require(len(chosen) == count, name, count, held)
        draw = np.random.default_rng([seed, validation])
        texts = [decoy(window, kind, draw) if i % 2 else window for i, window in enumerate(chosen)]
        labels = [kind.value if i % 2 else "real" for i in range(count)]
        found.append([f">{i} label={labels[i]}\n{texts[i]}\n" for i in range(count)])
    return found[0], found[1]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = new_parser("mdm_jax.tasks.classify.decoys", __doc__)
    add = flags.add_argument
    add("genome", metavar="GENOME", help="FASTA file or folder")
    add("--kind", choices=[kind.value for kind in Decoy], default=Decoy.SHUFFLED.value, help="decoys (%(default)s)")
    add("--out", required=True, metavar="DIR", help="folder for train.fasta and test.fasta")
    add("--length", type=int, default=128, help="letters of a sequence (%(default)s)")
    add("--train", type=int, default=4000, help="sequences to train on (%(default)s)")
    add("--test", type=int, default=2000, help="sequences to test on (%(default)s)")
    fraction = DataSpec.validation_fraction
    add("--validation-fraction", type=float, default=fraction, help="that of the prepared genome (%(default)s)")
    add("--seed", type=int, default=0, help="chooses windows and draws decoys (%(default)s)")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 after one line that says what is wrong."""
    flags = parser().parse_args(argv)

    def work() -> int:
        require(4 <= flags.length <= REGION_LETTERS, "--length", flags.length, f"from 4 to {REGION_LETTERS} letters")
        for name in ("train", "test"):
            count = getattr(flags, name)
            require(count >= 10 and count % 2 == 0, f"--{name}", count, "an even number of at least 10 sequences")
        share = flags.validation_fraction
        require(0 < share < 1, "--validation-fraction", share, "between 0 and 1, both excluded")
        require(0 <= flags.seed <= MOST_SEED, "--seed", flags.seed, f"from 0 to {MOST_SEED}")
        kind = Decoy(flags.kind)
        train, test = examples(flags.genome, kind, flags.length, flags.train, flags.test, share, flags.seed)
        make_folder(as_path(flags.out))
        for name, records in (("train.fasta", train), ("test.fasta", test)):
            write_atomic(as_path(flags.out) / name, "".join(records))
        print(f"{flags.out}: {len(train)} sequences to train on, {len(test)} to test on, half of them {kind.value}")
        return DONE

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
