"""Documents of a TensorFlow Datasets builder directory, read without TensorFlow."""

import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from mdm_jax.files.storage import as_path, is_file

READABLE = "array_record"


def tfds_documents(directory: str, text_field: str, start: int = 0, stop: int = sys.maxsize) -> Iterator[str]:
    """The text feature `text_field` of records `start … stop - 1` of the split `train`, in order.

    Args:
        directory: folder of a prepared TFDS builder, …/name/config/1.0.0.
        text_field: name of the feature.
        start: first record.
        stop: end of the records, exclusive.

    Raises:
        ValueError: the folder is not a builder's, its files are not ArrayRecord (TFDS' Parquet reader silently drops
            rows), it has no such feature or no split `train`, or a file is absent, corrupt or cut short.
    """
    builder = _builder(directory)
    features = sorted(cast(Mapping[str, object], builder.info.features or {}))
    if text_field not in features:
        raise ValueError(f"{directory}: no feature {text_field!r}; it has {', '.join(features)}")
    count = tfds_records(directory)
    try:
        records: Sequence = builder.as_data_source(split="train")  # pyright: ignore[reportCallIssue] (its decorator)
        if len(records) != count:
            raise ValueError(f"{directory}: {len(records)} records, not {count}: cut short")
        for i in range(start, min(stop, count)):
            text = records[i][text_field]
            yield text.decode() if isinstance(text, bytes) else str(text)
    except RuntimeError as error:
        raise ValueError(f"{directory}: a file of the split 'train' is absent or corrupt ({error})") from None


def tfds_records(directory: str) -> int:
    """The number of records of the split `train`.

    Raises:
        ValueError: the folder is not a builder's, or has no such split.
    """
    splits = _builder(directory).info.splits
    if "train" not in splits:
        raise ValueError(f"{directory}: no split 'train'; it has {', '.join(splits)}")
    return splits["train"].num_examples


@functools.lru_cache(maxsize=1)
def _builder(directory: str) -> Any:
    _check_format(directory)
    import tensorflow_datasets  # not at the top: it takes a second, and only this source needs it

    return tensorflow_datasets.builder_from_directory(directory)


def _check_format(directory: str) -> None:
    """Raises ValueError unless the folder is a builder's, with ArrayRecord files."""
    info = as_path(directory) / "dataset_info.json"
    if not is_file(info):
        raise ValueError(f"{info}: no such file: corpus.path must be a TFDS builder directory (…/name/config/1.0.0)")
    try:
        file_format = json.loads(info.read_text()).get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{info}: not a TFDS description ({error})") from None
    if file_format != READABLE:
        raise ValueError(f"{directory}: file format {file_format}: write it with file_format={READABLE!r}")
