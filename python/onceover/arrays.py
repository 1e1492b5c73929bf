"""What a caller hands over → a numpy array of the same memory, or an InputError that says what to call instead.

Numbers, too: a whole number of any integer type → int, or a UsageError.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError, UsageError

_ARRAY_MARKS = ("__array_interface__", "__array_struct__", "__array__", "__cuda_array_interface__")


def is_array(value: Any) -> bool:
    """numpy arrays, torch tensors, memoryviews and others that hold numbers in one piece; not lists, not numbers."""
    return any(hasattr(value, mark) for mark in _ARRAY_MARKS) or _is_buffer(value)


def view_array(value: Any, what: str) -> NDArray[Any]:
    """The array behind arrays, tensors on the CPU, buffers and lists; the same memory wherever numpy can view it.

    what: how messages name it. Raises InputError for a tensor that requires grad, on a device, or of a type that numpy
    lacks (bfloat16), for masked values, and for lists that are no array.
    """
    if getattr(value, "requires_grad", False):
        raise InputError(f"{what} is a tensor that requires grad; pass .detach()")
    device = getattr(getattr(value, "device", None), "type", "cpu")
    if device != "cpu" or (hasattr(value, "__cuda_array_interface__") and not hasattr(value, "detach")):
        place = device if device != "cpu" else "a GPU"
        raise InputError(f"{what} is on {place}, not in the memory of the CPU; pass .cpu()")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(f"{what} is a masked array; every element needs a value")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:  # e.g. torch.bfloat16, which numpy lacks
        hint = "; pass .float()" if "bfloat16" in str(getattr(value, "dtype", "")) else ""
        raise InputError(f"{what} ({type(value).__name__}) cannot be read as an array: {error}{hint}") from error


def whole_number(value: Any, what: str) -> int:
    """A Python int, from numpy's too; UsageError for bool, float and what is no number."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise UsageError(f"{what} is {value!r}, expected a whole number") from error


def real_number(value: Any, what: str) -> float:
    """A Python float, from any number; UsageError for text, None, arrays of several, and what no float64 holds."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except OverflowError as error:  # 10**400; with more digits, Python would refuse to write it into a message
        raise UsageError(f"{what} is too large, expected a number within ±{sys.float_info.max:.2g}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} is {value!r}, expected a number") from error


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True
