"""What rows of Arrow come to as objects of Python, before they are made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import I64

OBJECT_BYTES = 256
"""About what Python takes for a value in a list, beside its text."""


def python_sizes(array: pa.Array) -> I64:
    """About the bytes that each value takes as an object of Python.

    Raises:
        pa.ArrowException: a value is no entry of its dictionary; the type is not known here.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return python_sizes(array.storage)
    if pa.types.is_dictionary(kind):
        entries = np.append(python_sizes(array.dictionary), OBJECT_BYTES)
        places = array.indices.fill_null(len(array.dictionary)).to_numpy(zero_copy_only=False)
        if len(places) and not 0 <= places.min() <= places.max() < len(entries):  # Arrow does not look
            raise pa.ArrowIndexError(f"a value is not one of the {len(array.dictionary):,} entries of its dictionary")
        return entries[places]
    if pa.types.is_struct(kind):
        fields = (python_sizes(array.field(number)) for number in range(kind.num_fields))
        return sum(fields, np.full(len(array), OBJECT_BYTES))
    if pa.types.is_fixed_size_list(kind):
        ends = (array.offset + np.arange(len(array) + 1)) * kind.list_size
        return _sums(array.values, ends[:-1], ends[1:])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        ends = array.offsets.to_numpy()
        return _sums(array.values, ends[:-1], ends[1:])
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        starts = array.offsets.to_numpy()
        return _sums(array.values, starts, starts + array.sizes.to_numpy())
    if pa.types.is_nested(kind):
        raise pa.ArrowNotImplementedError(f"values of type {kind} are not read")
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array, kind = array.cast(pa.large_binary()), pa.large_binary()
    if any(is_kind(kind) for is_kind in _TEXTS):
        return OBJECT_BYTES + pc.binary_length(array).fill_null(0).to_numpy().astype(np.int64)
    return np.full(len(array), OBJECT_BYTES)


def _sums(values: pa.Array, starts: I64, ends: I64) -> I64:
    """Of lists, which have these places of their values."""
    sums = np.concatenate([[0], np.cumsum(python_sizes(values))])
    return OBJECT_BYTES + sums[ends] - sums[starts]


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
