"""Pickles that hold data and nothing else: arrays, bytes, text, numbers, lists and dicts.

A pickle is a program. This reader runs it on an interpreter that knows few instructions, and gives it four names, none
of which is what the pickle takes it for: they note what they are called with, and the array is made afterwards, here,
from its bytes. So nothing is imported or called that the file asks for, and no numpy state is built from it.
"""

import math
import pickle
import pickletools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from training.errors import TrainingError

MAX_BYTES = 1 << 28
MAX_INSTRUCTIONS = 2_000_000  # CIFAR-100 has 350,000; each may make an object fifty times as large as itself
DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"}
BYTE_ORDERS = {"<", ">", "=", "|"}
# No LONG4 (endless numbers), BYTEARRAY8 (memory for bytes that are not there), extensions, persistent ids or objects.
OPCODES = """PROTO FRAME STOP MARK POP POP_MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE LIST TUPLE TUPLE1 TUPLE2 TUPLE3
    SETITEM SETITEMS APPEND APPENDS BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE NONE NEWTRUE NEWFALSE
    BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES
    SHORT_BINUNICODE BINUNICODE GLOBAL STACK_GLOBAL REDUCE BUILD"""
ALLOWED = set(OPCODES.split())


class _DType:
    """Stands for numpy.dtype: the letters of a plain one, and its byte order."""

    def __init__(self, letters: Any, *_: Any) -> None:
        self.letters = _choice(letters, DTYPES, "an array of another kind than plain numbers")
        self.order = "="

    def set(self, state: Any) -> None:
        self.order = _choice(state[1], BYTE_ORDERS, "an array of no known byte order")


class _Array:
    """Stands for an array that is being rebuilt; `value` is the array, once its state is there."""

    value: Any = None

    def set(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _DType or type(data) is not bytes or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array without plain bytes")
        kind = np.dtype(dtype.order + dtype.letters)
        if math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(data)} bytes")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran is True else "C")


def _choice(value: Any, allowed: set[str], fault: str) -> str:
    """Return `value` as text if it is one of `allowed`; nested tuples could take for ever to be hashed or shown."""
    text = value.decode("latin-1") if type(value) is bytes else value
    if type(text) is not str or text not in allowed:
        raise pickle.UnpicklingError(fault)
    return text


class _Restricted(pickle._Unpickler):
    """The interpreter in Python: the one in C reserves memory for whatever index a pickle names."""

    stack: list[Any]  # what the interpreter works on, replaced at every mark
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
        ord(opcode.code): pickle._Unpickler.dispatch[ord(opcode.code)]
        for opcode in pickletools.opcodes
        if opcode.name in ALLOWED
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self.allowance = MAX_BYTES
        self.known: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): self.encode,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[module, name]

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Stand for _codecs.encode, by which Python 3 writes bytes for Python 2."""
        _choice(encoding, {"latin1", "latin-1"}, "text in another encoding than latin-1")
        self.allowance -= len(text)
        if type(text) is not str or self.allowance < 0:
            raise pickle.UnpicklingError("too much text in place of bytes")
        return text.encode("latin-1")

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in self.known.values()):
            raise pickle.UnpicklingError("it calls what is no function")
        self.stack.append(function(*arguments))

    def build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) not in {_Array, _DType}:
            raise pickle.UnpicklingError(f"it sets the state of a {type(made).__name__}")
        made.set(state)

    def set_items(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set_item(target, key, value)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_item(self.stack[-1], key, value)

    def _set_item(self, target: Any, key: Any, value: Any) -> None:
        if type(target) is not dict or type(key) not in {str, bytes}:
            raise pickle.UnpicklingError("a dict whose keys are not text")
        target[key] = value

    dispatch |= {
        pickle.REDUCE[0]: reduce,
        pickle.BUILD[0]: build,
        pickle.SETITEM[0]: set_item,
        pickle.SETITEMS[0]: set_items,
    }


def load_pickle(path: Path) -> dict[str, Any]:
    """Return the dict that a pickle holds.

    Args:
        path: The file.

    Returns:
        Arrays, bytes, text, numbers, lists, tuples and dicts by name; text of Python 2 comes as bytes.

    Raises:
        TrainingError: If the file is damaged, too large, holds no dict, or asks for anything else.
    """
    if path.stat().st_size > MAX_BYTES:
        raise TrainingError(f"{path} has {path.stat().st_size} bytes; a pickle of pictures may have {MAX_BYTES}")
    content = path.read_bytes()
    try:
        for count, (opcode, _, _) in enumerate(pickletools.genops(content)):
            if opcode.name not in ALLOWED or count >= MAX_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"{opcode.name} is its instruction {count}")
        loaded = _Restricted(content).load()
        if type(loaded) is not dict:
            raise TypeError(f"not a dict but {type(loaded).__name__}")
    except Exception as error:  # a damaged pickle raises anything
        raise TrainingError(
            f"{path} is damaged or holds more than arrays, bytes, text, numbers, lists and dicts: {error}"
        ) from error
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: entry.value if type(entry) is _Array else entry
        for key, entry in loaded.items()
    }
