"""A corpus without a download: the documentation of Python and of this project's dependencies.

Docstrings are read with `ast` (nothing is imported or run), READMEs from the packages' metadata. A file is parsed
only if a fifth of it looks like docstrings, which keeps nine tenths of the text and halves the time. The text depends
on the installed versions, and so does `data_hash`. A text's group is its package, or its top-level module in the
standard library, so the validation text comes from packages and modules that are not in the training text.
"""

import ast
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mdm_jax.data.sources.holdout import Grouped

PACKAGES = (
    "etils",
    "flax",
    "grain",
    "jax",
    "jaxtyping",
    "matplotlib",
    "ml-collections",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "sentencepiece",
    "zstandard",
)
"""Required dependencies, because an extra (cuda, tpu, dev) must not change the corpus. Absent ones are skipped."""

TOPICS = "pydoc_data/topics.py"  # the language reference, as strings in a dict
SKIPPED_PARTS = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "lib-dynload", "licenses", ".."}
SKIPPED_PREFIXES = ("config-", "_sysconfigdata", "test_")  # settings of the build machine, and tests
LEAST_CHARACTERS = 100
MOST_CHARACTERS = 1 << 16
LEAST_LETTERS = 0.6
DOCSTRING_SHARE = 0.2
MOST_FILE_BYTES = 4 << 20


@dataclass(frozen=True)
class _Source:
    """One file. `key` decides its place in the corpus, and does not depend on the place of the installation."""

    key: str
    path: Path
    group: str


def pydoc_versions() -> str:
    """The versions of Python and of the packages in the corpus, which decide its text."""
    versions = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(versions)


def pydoc_documents() -> Iterator[Grouped]:
    """Docstrings and documentation files, one document each. Files are in the order of a hash of their names.

    This order mixes the packages, so the first tokens are a fair sample of the corpus.
    """
    sources = [*_standard_library(), *(source for name in PACKAGES for source in _package(name))]
    for source in sorted(sources, key=lambda s: hashlib.sha256(s.key.encode()).digest()):
        yield from (Grouped(source.group, text) for text in _texts(source) if _is_prose_or_code(text))


def _standard_library() -> Iterator[_Source]:
    root = Path(sysconfig.get_path("stdlib"))
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _is_skipped(name)]
        for name in files:
            if name.endswith(".py") and not _is_skipped(name):
                path = Path(folder, name)
                key = path.relative_to(root).as_posix()
                yield _Source(key, path, _module_group(key))


def _module_group(key: str) -> str:
    """The name of the top-level module, without `_` or `_py` in front: `_pyio.py` belongs to `io`."""
    top = key.partition("/")[0].removesuffix(".py")
    return top.removeprefix("_py").lstrip("_") or top


def _package(name: str) -> Iterator[_Source]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    for file in distribution.files or ():
        if file.suffix not in (".py", ".md", ".rst") and file.name != "METADATA":
            continue
        if not any(map(_is_skipped, file.parts)) and not file.stem.endswith("_test"):
            key = f"{name}/METADATA" if file.name == "METADATA" else file.as_posix()
            yield _Source(key, Path(str(distribution.locate_file(file))), name)


def _is_skipped(part: str) -> bool:
    return part in SKIPPED_PARTS or part.startswith(SKIPPED_PREFIXES)


def _texts(source: _Source) -> Iterator[str]:
    try:
        if source.path.stat().st_size > MOST_FILE_BYTES:
            return
        text = source.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return  # the file has another encoding, or the package lists it but does not ship it
    if source.path.suffix == ".py":
        yield from _python_texts(source, text)
    elif source.path.name == "METADATA":
        yield text.partition("\n\n")[2].strip()
    else:
        yield text.strip()


def _python_texts(source: _Source, text: str) -> Iterator[str]:
    topics = source.key == TOPICS
    quoted = sum(len(part) for part in text.split('"""')[1::2])
    if quoted < DOCSTRING_SHARE * len(text) and not topics:
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return  # a template, or the syntax of another Python version
    if topics:
        values = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        yield from (value.strip() for value in values)
        return
    for node in (tree, *_definitions(tree.body)):
        yield (ast.get_docstring(node) or "").strip()


def _definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Classes and functions, also under `if` and `try`, in the order of the file."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try):
            yield from _definitions(node.body)


def _is_prose_or_code(text: str) -> bool:
    """Whether a text has a useful length and is mostly letters and blanks, unlike tables of numbers."""
    if not LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS:
        return False
    return sum(map(str.isalpha, text)) + sum(map(str.isspace, text)) >= LEAST_LETTERS * len(text)
