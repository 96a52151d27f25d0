"""Safetensors files that nobody vouches for: hostile headers, several files, and names that stand twice."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mdm_jax.interop.tensors import read_tensors

EIGHT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def examined(shapes, metadata):
    return shapes


def written(path, header, data=b""):
    """The path of a file with this header, a dict or bytes, and this data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
HOSTILE = {
    "overlap": ({"a": EIGHT, "b": {**EIGHT, "data_offsets": [4, 12]}}, 12),
    "gap": ({"a": {**EIGHT, "data_offsets": [4, 12]}}, 12),
    "bytes after the last tensor": ({"a": EIGHT}, 12),
    "negative offset": ({"a": {**EIGHT, "data_offsets": [-8, 0]}}, 8),
    "negative size": ({"a": {**EIGHT, "shape": [-2]}}, 8),
    "2^60 numbers": ({"a": {**EIGHT, "shape": [1 << 60], "data_offsets": [0, 1 << 62]}}, 8),
    "a size that overflows to 0": ({"a": {**EIGHT, "shape": [1 << 62, 4], "data_offsets": [0, 0]}}, 0),
    "a name twice": (TWICE, 16),
    "more numbers than bytes": ({"a": {**EIGHT, "shape": [3]}}, 8),
    "names that are no text": (b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
    "no JSON": (b"{", 8),
}


@pytest.mark.parametrize(("header", "size"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused_in_one_line(tmp_path, header, size):
    path = written(tmp_path / "hostile", header, bytes(size))
    with pytest.raises(ValueError, match=r"hostile: no safetensors file, or cut short .*never opened$") as caught:
        read_tensors([path], examined)
    assert "\n" not in str(caught.value)


def test_a_header_longer_than_the_file_is_refused(tmp_path):
    for length in (9, 1 << 40, (1 << 64) - 1):
        (tmp_path / "hostile").write_bytes(length.to_bytes(8, "little") + b"{}      ")
        with pytest.raises(ValueError, match="no safetensors file, or cut short"):
            read_tensors([tmp_path / "hostile"], examined)


@pytest.mark.parametrize("dtype", ["I64", "F64", "BOOL", "U8"])
def test_numbers_that_are_no_weights_are_named(tmp_path, dtype):
    numbers = {"I64": 1, "F64": 1, "BOOL": 8, "U8": 8}[dtype]
    path = written(tmp_path / "a", {"w": {"dtype": dtype, "shape": [numbers], "data_offsets": [0, 8]}}, bytes(8))
    with pytest.raises(ValueError, match=f"a: w: dtype = '{dtype}': must be one of BF16, F16, F32"):
        read_tensors([path], examined)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_named(tmp_path, bad):
    save_file({"w": np.array([1, bad], np.float32), "v": np.ones(2, np.float32)}, tmp_path / "a")
    with pytest.raises(ValueError, match="a: w = 'not finite': must be free of NaN and infinity"):
        read_tensors([tmp_path / "a"], examined)


def test_nothing_is_read_before_the_shapes_are_examined(tmp_path):
    save_file({"w": np.full(2, np.nan, np.float32)}, tmp_path / "a")

    def refuse(shapes, metadata):
        assert (shapes, metadata) == ({"w": (2,)}, {})
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        read_tensors([tmp_path / "a"], refuse)


def test_several_files_are_read_together_and_no_tensor_stands_twice(tmp_path):
    first, second = np.arange(2, dtype=np.float32), np.arange(3, dtype=np.float32)
    save_file({"a": first}, tmp_path / "1", {"x": "1"})
    save_file({"b": second}, tmp_path / "2", {"y": "2"})
    found, tensors = read_tensors([tmp_path / "1", tmp_path / "2"], lambda shapes, metadata: (shapes, metadata))
    assert found == ({"a": (2,), "b": (3,)}, {"x": "1", "y": "2"})
    np.testing.assert_array_equal(tensors["a"], first)
    np.testing.assert_array_equal(tensors["b"], second)
    with pytest.raises(ValueError, match=r"1: a = 'also in another file': must be in one file only"):
        read_tensors([tmp_path / "1", tmp_path / "1"], examined)


def test_an_object_store_is_named_before_anything_is_read():
    with pytest.raises(ValueError, match=r"file of weights = 'gs://.*': must be on a local disk: copy it there"):
        read_tensors(["gs://bucket/model.safetensors"], examined)
