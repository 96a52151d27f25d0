"""A run table from a Parquet file, whose few bytes may ask for any amount of memory: its metadata are read first."""

import io

import pandas as pd
import pyarrow
import pyarrow.parquet

MOST_ROWS = 1_000_000
MOST_VALUES = 50_000_000
"""Most values of all columns together: 400 MB as float64."""
MOST_BYTES = 1 << 30
MOST_EXPANSION, ALWAYS_FINE_BYTES = 1000, 8 << 20
"""A column chunk that grows by a larger factor, to more than these bytes, is no run table's."""


def read_parquet(raw: bytes) -> pd.DataFrame:
    """The table in the bytes of a Parquet file.

    Raises:
        ValueError: it is not readable, or its metadata promise more than a run table holds.
    """
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(raw))
        check_sizes(file.metadata)
        kinds = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_binary)
        text = [field.name for field in file.schema_arrow if any(kind(field.type) for kind in kinds)]
        # A long text that a thousand rows share is kept once.
        return pyarrow.parquet.ParquetFile(io.BytesIO(raw), read_dictionary=text).read().to_pandas()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def check_sizes(metadata: pyarrow.parquet.FileMetaData) -> None:
    """Refuses a file whose metadata promise more than a run table holds.

    Raises:
        ValueError: it does not; the number and the bound are named.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    counts = {
        "rows": (metadata.num_rows, MOST_ROWS),
        "values": (sum(column.num_values for column in columns), MOST_VALUES),
        "uncompressed bytes": (sum(column.total_uncompressed_size for column in columns), MOST_BYTES),
    }
    for name, (count, most) in counts.items():
        if count > most:
            raise ValueError(f"{count} {name}, a run table has at most {most}")
    for column in columns:
        grown, stored = column.total_uncompressed_size, max(1, column.total_compressed_size)
        if grown > max(ALWAYS_FINE_BYTES, MOST_EXPANSION * stored):
            raise ValueError(f"column {column.path_in_schema} grows from {stored} to {grown} bytes, as no run table's")
