"""Prepares a corpus: text to shards of token ids and the manifest that pins them.

    python -m mdm_jax.data.prepare --config experiments/quickstart.py
    python -m mdm_jax.data.prepare --corpus jsonl --path 'text/*.jsonl.zst' --out data/mine
    python -m mdm_jax.data.prepare --corpus fasta --path genome.fna.gz --tokenizer nucleotides --out data/genome

A folder that has the same corpus already is left unchanged. A new corpus is written to another folder, which is renamed
at the end, so an unfinished corpus is never taken for a finished one. After an interruption, the same command goes on
from the finished parts.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Iterator

import rich.console
import rich.progress

from mdm_jax.command import DONE, Parser, exit_code
from mdm_jax.config import load_run
from mdm_jax.data.build import PARTS, Progress, Report, build_shards
from mdm_jax.data.manifest import (
    MANIFEST_FILE,
    SPLITS,
    TOKENIZER_FILE,
    TOKENIZER_JSON_FILE,
    Manifest,
    check_matches,
    read_manifest,
    sums_file,
)
from mdm_jax.data.store import open_split
from mdm_jax.files import storage
from mdm_jax.files.lock import hold
from mdm_jax.files.storage import Kind, Path, as_path, is_file, is_local, kind, refuse_link
from mdm_jax.spec import (
    BYTES_VOCAB_SIZE,
    FIXED_VOCAB_SIZES,
    CorpusSource,
    CorpusSpec,
    DataSpec,
    TokenizerKind,
    TokenizerSpec,
)
from mdm_jax.spec.validation import require

LONG_BYTES = 32 << 10
"""Longer documents on average mean that a text file has few blank lines; prose gives 4 to 5 kB."""


def prepare(
    data: DataSpec,
    force: bool = False,
    verify: bool = False,
    report: Report = lambda progress: None,
    jobs: int = 1,
    skip_bad: bool = False,
) -> tuple[Manifest, bool]:
    """The manifest of `data.directory`, and whether this call made the shards.

    Args:
        data: corpus, tokenizer, split and folder.
        force: prepare an existing corpus again.
        verify: check the SHA-256 of every existing shard, not only its size.
        report: called after each piece of the corpus.
        jobs: maximum number of processes; the shards are the same for any number.
        skip_bad: skip bad lines of JSONL and bad files.

    Raises:
        ValueError: the corpus or the tokenizer is bad, or the folder has other files.
        OSError: the disk is full or not writable; the old corpus is untouched, and finished parts remain.
    """
    target = as_path(data.directory)
    if is_local(target):
        target = as_path(os.path.realpath(target))  # if it is a link, the folder that it leads to is replaced
    with _locked(target):
        if not force and is_file(target / MANIFEST_FILE):
            manifest = read_manifest(target)
            check_matches(manifest, dataclasses.replace(data, data_hash=""))
            for name in SPLITS:
                open_split(target, name, verify, manifest)
            return manifest, False
        _refuse_other_files(target)
        work = _work_folder(target)
        refuse_link(work)
        _clean_work_folder(work)
        try:
            manifest = build_shards(data, work, report, jobs=jobs, skip_bad=skip_bad)
        except ValueError:
            if not any((work / PARTS).glob("*.json")):
                shutil.rmtree(work, ignore_errors=True)
            raise
        _publish(work, target)
        shutil.rmtree(work, ignore_errors=True)
    return manifest, True


def _clean_work_folder(work: Path) -> None:
    """Makes the work folder, and removes the shards of an interrupted attempt, but not its finished parts."""
    work.mkdir(parents=True, exist_ok=True)
    for file in work.iterdir():
        if file.name != PARTS:
            file.unlink()


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Waits for other processes of this machine that prepare the same folder, and keeps them out."""
    if not is_local(target):
        yield
        return
    storage.make_folder(target.parent)
    with hold(target.parent, f".{target.name}.lock", lambda line: print(line, file=sys.stderr), math.inf):
        yield


def _work_folder(target: Path) -> Path:
    """The folder in which the shards are built: next to a local target, so that it can be renamed at the end."""
    name = f".{target.name}.partial"
    return target.parent / name if is_local(target) else as_path(name)


def _refuse_other_files(target: Path) -> None:
    """Raises ValueError if the folder has files that no preparation made, because they would be deleted."""
    if kind(target, follow=True) not in (Kind.ABSENT, Kind.FOLDER):
        raise ValueError(f"{target}: is not a folder: choose another --out")
    for name in sorted(path.name for path in storage.entries(target)):
        is_shard = name.startswith(SPLITS) and name.endswith((".bin", sums_file(".bin")))
        if not is_shard and name not in (MANIFEST_FILE, TOKENIZER_FILE, TOKENIZER_JSON_FILE):
            raise ValueError(f"{target}: holds {name}, which is no shard: choose another --out folder")


def _publish(work: Path, target: Path) -> None:
    """Moves the built folder to `target`. In an object store, the manifest is uploaded last."""
    if is_local(target):
        old = target.parent / f".{target.name}.replaced"
        refuse_link(old)
        shutil.rmtree(old, ignore_errors=True)
        _refuse_other_files(target)
        if kind(target) is not Kind.ABSENT:
            target.rename(old)
        work.rename(target)
        storage.sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        return
    (target / MANIFEST_FILE).unlink(missing_ok=True)
    for file in sorted(work.iterdir(), key=lambda p: p.name == MANIFEST_FILE):
        file.copy(target / file.name, overwrite=True)


def _data_spec(args: argparse.Namespace) -> DataSpec:
    """The DataSpec of the flags or of the experiment file."""
    if args.config:
        data = load_run(args.config, args.set).data
        return dataclasses.replace(data, directory=args.out or data.directory)
    if not args.out or not args.corpus:
        raise ValueError("give --config FILE, or --corpus SOURCE and --out DIR")
    kind = TokenizerKind(args.tokenizer)
    vocab_size = args.vocab_size or FIXED_VOCAB_SIZES.get(kind, BYTES_VOCAB_SIZE)
    return DataSpec(
        corpus=CorpusSpec(CorpusSource(args.corpus), args.path, args.text_field, args.max_bytes),
        tokenizer=TokenizerSpec(kind, vocab_size, args.tokenizer_path),
        validation_fraction=args.validation_fraction,
        directory=args.out,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser("mdm_jax.data.prepare", description="Text to token shards.")
    add = parser.add_argument
    add("--config", help="experiment file; its run.data section is prepared")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to it, such as run.seed=1")
    sources = [source.value for source in CorpusSource]
    kinds = "`passages` are text files, cut anywhere; `pairs` JSONL with prompt and response; `fasta` nucleotides"
    add("--corpus", choices=sources, help=f"instead of --config; {kinds}")
    add("--path", default="", help="file, folder or glob; the builder's folder for tfds; nothing for pydoc")
    add("--text-field", default="text", help="field of jsonl, parquet and tfds records (text)")
    add("--max-bytes", type=int, default=0, help="stop after this much text; 0 takes everything")
    add("--tokenizer", choices=[kind.value for kind in TokenizerKind], default="bytes")
    add("--vocab-size", type=int, default=0, help="ids with EOS (257; 6 for nucleotides)")
    add("--tokenizer-path", default="", help="file of sentencepiece_file or tokenizer_json")
    fraction = DataSpec.validation_fraction
    add("--validation-fraction", type=float, default=fraction, help="share of the documents (of the text for pydoc)")
    add("--out", help="folder of the shards (the experiment's data.directory)")
    add("--jobs", type=int, default=_processors(), help="processes at a time; the shards are the same for any number")
    add("--skip-bad", action="store_true", help="skip lines and files that are corrupt or not UTF-8, and print each")
    add("--force", action="store_true", help="prepare an existing corpus again")
    add("--verify", action="store_true", help="check the SHA-256 of existing shards, not only their sizes")
    return parser


def _processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Report]:
    """Prints what was skipped; on a terminal, also shows a bar with the time left."""
    console = rich.console.Console(stderr=True)
    count = rich.progress.TextColumn("{task.fields[documents]:,} documents")
    columns = rich.progress.Progress.get_default_columns()
    with rich.progress.Progress(*columns, count, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, documents=0)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, documents=progress.documents)
            for message in progress.skipped:
                print(f"skipped: {message}", file=sys.stderr)

        yield report


def _summary(manifest: Manifest, folder: str, made: bool) -> str:
    lines = ["prepared" if made else "already prepared: left as it is"]
    for name in SPLITS:
        split = manifest.split(name)
        lines.append(
            f"{name}: {split.documents:,} documents, {split.tokens:,} tokens, {split.text_bytes / 1e6:.2f} MB of text,"
            f" {split.bytes_per_token:.2f} bytes a token, {len(split.shards)} shards"
        )
    documents = manifest.train.documents + manifest.validation.documents
    text_bytes = manifest.train.text_bytes + manifest.validation.text_bytes
    if manifest.corpus.source is CorpusSource.TEXT and text_bytes > LONG_BYTES * documents:
        long = f"documents of {text_bytes / documents / 1000:.0f} kB: the text has few blank lines, where it is cut"
        lines.append(f"{long}; --corpus passages cuts it into 2 to 4 kB")
    if manifest.skipped:
        lines.append(f"skipped: {manifest.skipped:,} bad lines and files")
    tokenizer = f"{manifest.tokenizer.kind.value}, {manifest.vocab_size} ids, EOS {manifest.eos_id}"
    return "\n".join([*lines, f"tokenizer: {tokenizer}", f"folder: {folder}, data_hash {manifest.data_hash[:12]}"])


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 prepared now or before, 1 bad input or a full disk, 130 interrupted."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _prepare(args))


def _prepare(args: argparse.Namespace) -> int:
    data = _data_spec(args)
    require(args.jobs >= 1, "--jobs", args.jobs, "at least 1 process")
    try:
        with _progress(f"preparing {data.corpus.source.value} into {data.directory}") as report:
            manifest, made = prepare(data, args.force, args.verify, report, args.jobs, args.skip_bad)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted: the same command goes on from the finished parts") from None
    print(_summary(manifest, data.directory, made))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
