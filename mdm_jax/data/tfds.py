"""Documents of a TensorFlow Datasets builder directory, read without TensorFlow."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from mdm_jax.storage import as_path

READABLE = "array_record"


def tfds_documents(directory: str, text_field: str) -> Iterator[str]:
    """The text feature `text_field` of the split `train` of a prepared TFDS builder, in the order of its records.

    Raises:
        ValueError: no builder there, its files are not ArrayRecord (the Parquet reader silently drops rows), it has no
            such feature or no split `train`, or a file is absent, corrupt or cut short.
    """
    _check_format(directory)
    import tensorflow_datasets  # here: it takes a second and only this source needs it

    builder = tensorflow_datasets.builder_from_directory(directory)
    features = sorted(cast(Mapping[str, object], builder.info.features or {}))
    if text_field not in features:
        raise ValueError(f"{directory}: no feature {text_field!r}; it has {', '.join(features)}")
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{directory}: no split 'train'; it has {', '.join(splits)}")
    try:
        records: Sequence = builder.as_data_source(split="train")  # pyright: ignore[reportCallIssue] (its decorator)
        if len(records) != splits["train"].num_examples:
            raise ValueError(f"{directory}: {len(records)} records, not {splits['train'].num_examples}: cut short")
        for record in records:
            text = record[text_field]
            yield text.decode() if isinstance(text, bytes) else str(text)
    except RuntimeError as error:
        raise ValueError(f"{directory}: a file of the split 'train' is absent or corrupt ({error})") from None


def _check_format(directory: str) -> None:
    """Raises ValueError unless the directory is a builder's, with files that are read whole."""
    info = as_path(directory) / "dataset_info.json"
    if not info.is_file():
        raise ValueError(f"{info}: no such file: corpus.path must be a TFDS builder directory (…/name/config/1.0.0)")
    try:
        file_format = json.loads(info.read_text()).get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{info}: not a TFDS description ({error})") from None
    if file_format != READABLE:
        raise ValueError(f"{directory}: file format {file_format}: write it with file_format={READABLE!r}")
