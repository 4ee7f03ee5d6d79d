"""What a GGUF file says about itself: its header's key-value pairs, read without loading the model.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from turnwire.models.errors import ModelUnavailable

# Sizes of the value types by their number: u8 i8 u16 i16 u32 i32 f32 bool, (string, array), u64 i64 f64.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_STRING, _ARRAY = 8, 9
# A damaged length must not make us read a file whole: no chat template and no name is longer.
_STRING_BYTES_MAX = 4 * 1024 * 1024
_PAIRS_MAX = 10_000


@dataclass(frozen=True)
class Gguf:
    """A model file. `context` is the tokens it was trained for, 0 when the file doesn't say."""

    path: Path
    architecture: str
    context: int
    chat_template: str

    @property
    def takes_tools(self) -> bool:
        """Whether its chat template has a place for tools."""
        return "tools" in self.chat_template

    @property
    def thinks(self) -> bool:
        """Whether its chat template knows of reasoning."""
        return any(mark in self.chat_template for mark in ("<think", "enable_thinking", "reasoning", "<|channel|>"))


class _DamagedError(Exception):
    pass


def read_gguf(path: Path) -> Gguf:
    """The file's own account of itself; raises `ModelUnavailable`."""
    try:
        with path.open("rb") as file:
            pairs = _pairs(file)
    except OSError as error:
        raise ModelUnavailable(
            f"The model file {path} can't be read: {error.strerror}.", "Give the path of a GGUF file after `local:`."
        ) from error
    except (_DamagedError, struct.error) as error:
        raise ModelUnavailable(
            f"The file {path} is no whole GGUF model{f': {error}' if isinstance(error, _DamagedError) else ''}.",
            "Models in this format end in .gguf; download it again if it was cut off.",
        ) from None
    architecture = str(pairs.get("general.architecture", ""))
    context = pairs.get(f"{architecture}.context_length", 0)
    return Gguf(
        path, architecture, context if isinstance(context, int) else 0, str(pairs.get("tokenizer.chat_template", ""))
    )


def _pairs(file: BinaryIO) -> dict[str, str | int]:
    """The header's strings and integers by key; other values are passed over."""
    if file.read(4) != b"GGUF":
        raise _DamagedError("it does not begin with the letters GGUF")
    version, _tensors, count = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise _DamagedError(f"its version, {version}, is unknown")
    if count > _PAIRS_MAX:
        raise _DamagedError("its header is damaged")
    pairs: dict[str, str | int] = {}
    for _ in range(count):
        key = _string(file)
        value = _value(file, _integer(file, "<I"))
        if value is not None:
            pairs[key] = value
    return pairs


def _value(file: BinaryIO, kind: int) -> str | int | None:
    if kind == _STRING:
        return _string(file)
    if kind in _INTEGERS:
        return _integer(file, _INTEGERS[kind])
    if kind in _SIZES:
        file.read(_SIZES[kind])
        return None
    if kind != _ARRAY:
        raise _DamagedError("its header is damaged")
    inner, length = struct.unpack("<IQ", file.read(12))
    if inner in _SIZES:
        file.seek(_SIZES[inner] * length, 1)
    elif inner == _STRING:
        for _ in range(length):
            _string(file)
    else:
        raise _DamagedError("its header is damaged")
    return None


def _integer(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _string(file: BinaryIO) -> str:
    length = _integer(file, "<Q")
    if length > _STRING_BYTES_MAX:
        raise _DamagedError("its header is damaged")
    data = file.read(length)
    if len(data) < length:
        raise _DamagedError("it ends in the middle of its header")
    return data.decode(errors="replace")
