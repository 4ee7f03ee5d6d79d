"""What a command wrote, as text for a model: beginning and end, without what only a terminal understands."""

import codecs
import re

from turnwire.tools import limits

# Escape sequences of ECMA-48: CSI …; OSC, DCS, SOS, PM and APC up to their end (BEL or ST); two-byte ones.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNDECODABLE_SHARE = 0.1
"""Output of which more than this can't be decoded is binary. Text in an old encoding stays below: its letters are."""


class Output:
    """Takes output as it comes, and holds its beginning and end."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = limits.OUTPUT_HEAD_BYTES - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * limits.OUTPUT_TAIL_BYTES:
            del self._tail[: -limits.OUTPUT_TAIL_BYTES]

    def take(self) -> "Output":
        """What came since the last `take`."""
        taken = Output()
        taken._head, taken._tail, taken.size = self._head, self._tail, self.size
        self._head, self._tail, self.size = bytearray(), bytearray(), 0
        return taken

    def text(self) -> str:
        """As it is shown; what was left out is told where it was. Empty for no output."""
        tail = self._tail[-limits.OUTPUT_TAIL_BYTES :]
        if _is_binary(self._head + tail):
            return f"[{self.size} bytes of binary output, not shown. Write them into a file instead.]"
        left_out = self.size - len(self._head) - len(tail)
        if not left_out:
            return _plain((self._head + tail).decode("utf-8", "replace"))
        note = f"[… {left_out} bytes left out here …]"
        return f"{_plain(_beginning(self._head)).rstrip()}\n{note}\n{_plain(_end(tail)).lstrip()}"


def _is_binary(data: bytearray) -> bool:
    if 0 in data:
        return True
    undecodable = data.decode("utf-8", "replace").count("\ufffd")
    return undecodable > max(8, _UNDECODABLE_SHARE * len(data))


def _beginning(data: bytearray) -> str:
    """Text that was cut off at its end, perhaps within a character."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def _end(data: bytearray) -> str:
    """Text that was cut off at its beginning, perhaps within a character (whose later bytes are 0x80-0xBF)."""
    begin = next((index for index in range(min(3, len(data))) if not 0x80 <= data[index] < 0xC0), 0)
    return data[begin:].decode("utf-8", "replace")


def _plain(text: str) -> str:
    """Without terminal sequences; of a line that was written over, such as a progress bar, its last state."""
    text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROLS.sub("", text)
