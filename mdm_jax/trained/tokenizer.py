"""The tokenizer of a trained model: that of its run's prepared data, or the one beside its file."""

from mdm_jax.data.manifest import MANIFEST_FILE, TOKENIZER_FILE, TOKENIZER_JSON_FILE, read_manifest
from mdm_jax.data.nucleotides import NucleotideTokenizer
from mdm_jax.data.tokenizer import WITHOUT_FILE, ByteTokenizer, Tokenizer, load_tokenizer, open_tokenizer
from mdm_jax.data.tokenizer_json import JsonTokenizer
from mdm_jax.files.layout import RESULT_FILE
from mdm_jax.files.results import read_result
from mdm_jax.files.storage import Kind, Path, as_path, is_file, kind
from mdm_jax.interop.hf.tokenizer import holds_bytes, holds_nucleotides
from mdm_jax.spec import BYTES_VOCAB_SIZE, NUCLEOTIDES_VOCAB_SIZE, ModelSpec, RunSpec
from mdm_jax.spec.validation import require


def tokenizer_of(run: RunSpec, folder: Path) -> Tokenizer:
    """The tokenizer of the run in `folder`, from its prepared data; bytes and nucleotides need none.

    Raises:
        ValueError: the data is not there, or has another tokenizer than the run was trained with.
    """
    directory = as_path(run.data.directory)
    if run.data.tokenizer.kind in WITHOUT_FILE:
        return WITHOUT_FILE[run.data.tokenizer.kind]()
    if not is_file(directory / MANIFEST_FILE):
        raise ValueError(f"{directory}: the run's prepared data is not there: the tokenizer of {folder} lay in it")
    tokenizer = load_tokenizer(directory, read_manifest(directory))
    wanted = read_result(folder / RESULT_FILE).tokenizer_hash if is_file(folder / RESULT_FILE) else ""
    bound = f"{wanted}, with which the run was trained: prepare that data again"
    require(tokenizer.hash == wanted or not wanted, f"{directory}: tokenizer", tokenizer.hash, bound)
    return tokenizer


def tokenizer_beside(file: Path, spec: ModelSpec) -> Tokenizer:
    """The tokenizer beside a file of weights, or in a Hugging Face folder.

    If there is none, V = 257 means bytes, and V = 6 nucleotides.

    Raises:
        ValueError: the tokenizer is absent or corrupt, or has ids that the model does not know.
    """
    folder = file if kind(file, follow=True) is Kind.FOLDER else file.parent
    if spec.vocab_size == BYTES_VOCAB_SIZE and holds_bytes(folder):
        return ByteTokenizer()
    if spec.vocab_size == NUCLEOTIDES_VOCAB_SIZE and holds_nucleotides(folder):
        return NucleotideTokenizer()
    beside = [path for path in (folder / TOKENIZER_FILE, folder / TOKENIZER_JSON_FILE) if is_file(path)]
    if not beside:
        ways = f"the sentencepiece model beside it, as {TOKENIZER_FILE}, or its {TOKENIZER_JSON_FILE}"
        raise ValueError(f"{file}: needs its tokenizer: put {ways}")
    tokenizer = open_tokenizer(str(beside[0]))
    if isinstance(tokenizer, JsonTokenizer):  # a published model may have more ids than tokens, or tokens above V
        bound, largest = f"below {spec.vocab_size}, the vocabulary of {file.name}", tokenizer.largest_text_id
        require(largest < spec.vocab_size, f"{beside[0]}: largest id of text", largest, bound)
        return tokenizer
    bound = f"{spec.vocab_size}, the vocabulary of {file.name}"
    require(tokenizer.vocab_size == spec.vocab_size, f"{beside[0]}: vocab_size", tokenizer.vocab_size, bound)
    return tokenizer
