"""DataSpec: corpus, tokenizer and rows of a run."""

from dataclasses import dataclass, field

from mdm_jax.spec.kinds import CorpusSource, RowKind, TokenizerKind
from mdm_jax.spec.validation import HASHED_IF_SET, NOT_HASHED, require

BYTES_VOCAB_SIZE = 257
NUCLEOTIDES = "ACGTN"
"""Letters of the tokenizer `nucleotides`, in the order of their ids. EOS follows them."""
NUCLEOTIDES_VOCAB_SIZE = len(NUCLEOTIDES) + 1
FIXED_VOCAB_SIZES = {
    TokenizerKind.BYTES: BYTES_VOCAB_SIZE,
    TokenizerKind.NUCLEOTIDES: NUCLEOTIDES_VOCAB_SIZE,
}
"""The vocabularies that have one size."""


@dataclass(frozen=True)
class CorpusSpec:
    """The text. `path` is a file, folder or glob, or the builder directory for TFDS; it is empty for pydoc."""

    source: CorpusSource = CorpusSource.PYDOC
    path: str = ""
    text_field: str = "text"
    max_bytes: int = 0
    """Stop after this many bytes of text; 0 takes everything."""

    def __post_init__(self) -> None:
        require(self.max_bytes >= 0, "data.corpus.max_bytes", self.max_bytes, "0 (everything) or a number of bytes")
        needs_path = self.source is not CorpusSource.PYDOC
        require(bool(self.path) == needs_path, "data.corpus.path", self.path, "given for every source but pydoc")


@dataclass(frozen=True)
class TokenizerSpec:
    """Bytes (256 + EOS), nucleotides (5 + EOS), sentencepiece (trained here, or a file), or a `tokenizer.json`."""

    kind: TokenizerKind = TokenizerKind.BYTES
    vocab_size: int = BYTES_VOCAB_SIZE
    path: str = ""

    def __post_init__(self) -> None:
        if self.kind is TokenizerKind.BYTES:
            fine = self.vocab_size == BYTES_VOCAB_SIZE
            require(fine, "data.tokenizer.vocab_size", self.vocab_size, "257 for bytes (256 and EOS)")
        if self.kind is TokenizerKind.NUCLEOTIDES:
            fine = self.vocab_size == NUCLEOTIDES_VOCAB_SIZE
            require(fine, "data.tokenizer.vocab_size", self.vocab_size, "6 for nucleotides (A, C, G, T, N and EOS)")
        require(2 <= self.vocab_size <= 1 << 24, "data.tokenizer.vocab_size", self.vocab_size, "from 2 to 2^24")
        needs_path = self.kind in (TokenizerKind.SENTENCEPIECE_FILE, TokenizerKind.TOKENIZER_JSON)
        bound = "given for sentencepiece_file and tokenizer_json alone"
        require(bool(self.path) == needs_path, "data.tokenizer.path", self.path, bound)


@dataclass(frozen=True)
class DataSpec:
    """Corpus, tokenizer and row length. `directory` holds the prepared shards; `data_hash` identifies their content."""

    corpus: CorpusSpec = CorpusSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    seq_len: int = 64
    validation_fraction: float = 0.02
    directory: str = field(default="data/pydoc-bytes", metadata=NOT_HASHED)
    data_hash: str = field(default="", metadata=NOT_HASHED)
    score_prompt: bool = field(default=False, metadata=HASHED_IF_SET)
    """Pairs: whether prompts are masked and scored like responses, as in pre-training."""
    eos_to_end: bool = field(default=False, metadata=HASHED_IF_SET)
    """Pairs: whether EOS fills each row and is scored, so that an MDM learns where answers end. Else it is padding."""
    reverse_complement: bool = field(default=False, metadata=HASHED_IF_SET)
    """Whether half of the training rows, chosen by the seed, are read from the other strand."""

    def __post_init__(self) -> None:
        strands = self.tokenizer.kind is TokenizerKind.NUCLEOTIDES and self.corpus.source is not CorpusSource.PAIRS
        fits = strands or not self.reverse_complement
        bound = "false unless data.tokenizer.kind is nucleotides and the corpus has no pairs"
        require(fits, "data.reverse_complement", self.reverse_complement, bound)
        require(2 <= self.seq_len <= 1 << 20, "data.seq_len", self.seq_len, "from 2 to 2^20 tokens")
        good = 0 < self.validation_fraction < 1
        require(good, "data.validation_fraction", self.validation_fraction, "between 0 and 1, both excluded")
        for name in ("score_prompt", "eos_to_end"):
            fits = self.corpus.source is CorpusSource.PAIRS or not getattr(self, name)
            require(fits, f"data.{name}", True, "false unless data.corpus.source is pairs")

    @property
    def rows(self) -> RowKind:
        """What a row is."""
        if self.corpus.source is not CorpusSource.PAIRS:
            return RowKind.TEXT
        return RowKind.WHOLE_PAIRS if self.score_prompt else RowKind.RESPONSES
