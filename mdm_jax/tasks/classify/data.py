"""The labelled examples of a comparison: those to train on, those to test on, and what they have in common."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mdm_jax.data.tokenizer import Tokenizer
from mdm_jax.spec.validation import require
from mdm_jax.tasks.classify.examples import (
    Example,
    Rows,
    encode_examples,
    hold_out,
    known_labels,
    padded_to,
    read_examples,
)

FEWEST_TESTED = 10


@dataclass(frozen=True)
class Split:
    """Examples to train and to test on, and the file of each."""

    train_path: str
    test_path: str
    train: Sequence[Example]
    test: Sequence[Example]
    labels: Sequence[str]

    @property
    def chance(self) -> float:
        """Accuracy of always predicting the label that most training examples have."""
        most = Counter(example.label for example in self.train).most_common(1)[0][0]
        return sum(example.label == most for example in self.test) / len(self.test)

    @property
    def summary(self) -> str:
        """How many texts there are of each kind, in a line."""
        known = {example.text for example in self.train}
        again = sum(example.text in known for example in self.test)
        repeated = f"; WARNING: {again} test texts are training texts too" if again else ""
        most = f"the most frequent label has an accuracy of {self.chance:.4f}"
        counts = f"{len(self.train)} training texts, {len(self.test)} test texts, {len(self.labels)} labels"
        return f"{counts}; {most}{repeated}"

    def encoded(self, tokenizer: Tokenizer, most_tokens: int) -> tuple[Rows, Rows]:
        """Both kinds of examples as rows of one length.

        Raises:
            ValueError: see `encode_examples`.
        """
        train = encode_examples(self.train_path, self.train, self.labels, tokenizer, most_tokens)
        test = encode_examples(self.test_path, self.test, self.labels, tokenizer, most_tokens)
        length = max(train.tokens_SL.shape[1], test.tokens_SL.shape[1])
        return padded_to(train, length), padded_to(test, length)


def load_split(train_path: str, test_path: str | None, held_out: float) -> Split:
    """The examples of one file, of which a share is held out, or those of two files.

    Raises:
        ValueError: a file is broken (see `read_examples`), the training examples have one label, or there are fewer
            than 10 test examples.
    """
    train = read_examples(train_path)
    known_labels(train_path, train)
    if test_path is None:
        train, test = hold_out(train, held_out, seed=0)
    else:
        test = read_examples(test_path)
    labels, name = known_labels(train_path, train), f"{test_path or train_path}: test examples"
    require(len(test) >= FEWEST_TESTED, name, len(test), f"at least {FEWEST_TESTED}")
    return Split(train_path, test_path or train_path, train, test, labels)
