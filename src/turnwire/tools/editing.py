"""What read_file, write_file and edit_file do; synchronous, over a `Workspace`."""

from typing import BinaryIO

from pydantic_ai.messages import BinaryContent

from turnwire.seams.tool import ToolFailed
from turnwire.seams.workspace import File, Workspace
from turnwire.tools import limits
from turnwire.tools.images import SNIFF_BYTES, Damaged, kind_of, read_image
from turnwire.tools.stop import Stop


def read(workspace: Workspace, path: str, offset: int, limit: int, stop: Stop) -> str | list[str | BinaryContent]:
    """The file's lines from `offset`, as they are, then a note in brackets about what is missing; or the image.

    The lines are not numbered: what the model reads here it has to give back verbatim as edit_file's `old`, and
    small models copy the numbers along.
    """
    with workspace.open(path) as file:
        if (kind := _image_kind(file.stream)) is not None:
            return _image(file, kind)
        if is_binary(file.stream):
            return f"[{file.entry.path} is a binary file of {file.entry.size} bytes; it is not shown.]"
        lines = _Lines(file.stream, stop)
        beyond = f"{file.entry.path} has no line {offset} that can be reached; it is {file.entry.size} bytes long."
        for _ in range(offset - 1):
            if lines.next(limits.READ_BYTES_MAX) is None:
                raise ToolFailed(beyond)
        shown = lines.some(min(limit, limits.READ_LINES_MAX))
        more = lines.given_up or bool(file.stream.read(1))
    if not shown and (offset > 1 or more):
        raise ToolFailed(beyond)
    if not shown:
        return f"[{file.entry.path} is empty.]"
    text = b"".join(shown).decode("utf-8", "replace")
    notes: list[str] = []
    if more:
        end = offset + len(shown) - 1
        notes.append(f"lines {offset} to {end} of a file of {file.entry.size} bytes; read on with offset={end + 1}")
    if lines.cut:
        notes.append(f"lines longer than {limits.READ_LINE_BYTES_MAX} bytes were cut at …")
    if "\ufffd" in text:
        notes.append("\ufffd stands for bytes that are not UTF-8")
    if not notes:
        return text
    return f"{text}{'' if text.endswith(chr(10)) else chr(10)}[{'; '.join(notes)}]"


def _image_kind(stream: BinaryIO) -> str | None:
    kind = kind_of(stream.read(SNIFF_BYTES))
    stream.seek(0)
    return kind


def _image(file: File, kind: str) -> list[str | BinaryContent]:
    """An image, and what is said of it. One that no provider takes is refused with a way out."""
    path, smaller = file.entry.path, "make a smaller copy, and read that"
    most = limits.READ_IMAGE_BYTES_MAX
    data = file.stream.read(most + 1)
    if len(data) > most:
        size = max(file.entry.size, len(data))
        raise ToolFailed(f"{path} ({kind}) is {size} bytes long; at most {most} can be shown: {smaller}.")
    try:
        image = read_image(data)
    except Damaged as error:
        raise ToolFailed(f"{path} begins as {kind} does, but {error}: it can't be shown.") from error
    if max(image.width, image.height) > limits.READ_IMAGE_SIDE_MAX:
        raise ToolFailed(
            f"{path} ({kind}) is {image.width} × {image.height} pixels large; at most {limits.READ_IMAGE_SIDE_MAX} "
            f"on a side can be shown: {smaller}."
        )
    return [f"{path}: {image.width} × {image.height} pixels", BinaryContent(data, media_type=kind)]


def is_binary(stream: BinaryIO) -> bool:
    """Whether there is a NUL byte in the beginning of a file; the stream is at its beginning again afterwards."""
    beginning = stream.read(limits.BINARY_SNIFF_BYTES)
    stream.seek(0)
    return b"\0" in beginning


class _Lines:
    """Lines of a stream, long ones cut, without ever holding or passing over more than the limits."""

    def __init__(self, stream: BinaryIO, stop: Stop) -> None:
        self._stream, self._stop = stream, stop
        self._scanned = 0
        self.cut = False
        self.given_up = False

    def next(self, keep_bytes: int) -> tuple[bytes, bool] | None:
        """The next line, at most so much of it, and whether that is not all; None at the end, or when given up."""
        line = piece = self._stream.readline(keep_bytes)
        self._scanned += len(piece)
        cut = False
        while piece and not piece.endswith(b"\n"):
            piece = self._stream.readline(limits.READ_BYTES_MAX)
            self._scanned += len(piece)
            if self._stop or self._scanned > limits.READ_SCANNED_BYTES_MAX:
                self.given_up = True
                return None
            cut = cut or bool(piece)
        return (line, cut) if line else None

    def some(self, count: int) -> list[bytes]:
        """The next lines, until there are so many, or bytes enough."""
        lines: list[bytes] = []
        size = 0
        while len(lines) < count and size < limits.READ_BYTES_MAX:
            found = self.next(limits.READ_LINE_BYTES_MAX)
            if found is None:
                break
            line, cut = found
            if cut:
                self.cut = True
                # A character that was cut in two is dropped, so that it is not taken for bytes that aren't UTF-8.
                line = _without_split_character(line) + " …\n".encode()
            lines.append(line)
            size += len(line)
        return lines


def _without_split_character(line: bytes) -> bytes:
    """The line less the beginning of a UTF-8 character at its end, if there is one."""
    for back in (1, 2, 3):
        lead = line[-back:][:1]
        if lead >= b"\xc0":
            width = 2 + (lead >= b"\xe0") + (lead >= b"\xf0")
            return line[:-back] if width > back else line
    return line


def write(workspace: Workspace, path: str, content: str) -> str:
    data = _encoded("content", content)
    with workspace.put(path, bytes_max=limits.WRITE_BYTES_MAX) as upload:
        upload.write(data)
        entry, new = upload.commit()
    return f"{'Created' if new else 'Replaced'} {entry.path} ({entry.size} bytes)."


def edit(workspace: Workspace, path: str, old: str, new: str, replace_all: bool) -> str:
    """Replace on bytes: what is not UTF-8 elsewhere in the file, and its line ends, stay as they are."""
    before, after = _encoded("old", old), _encoded("new", new)
    if before == after:
        raise ToolFailed("`old` and `new` are the same: nothing to change.")
    with workspace.open(path) as file:
        data = file.stream.read(limits.EDIT_BYTES_MAX + 1)
    if len(data) > limits.EDIT_BYTES_MAX:
        raise ToolFailed(f"{file.entry.path} is larger than {limits.EDIT_BYTES_MAX} bytes: too large to edit.")
    count = data.count(before)
    if not count and b"\r\n" in data:
        # Models write LF whatever they were shown; in a file of CRLF lines they mean CRLF.
        before, after = (text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for text in (before, after))
        count = data.count(before)
    if not count:
        raise ToolFailed(
            f"`old` does not occur in {file.entry.path}. It must match exactly, white space and line breaks included: "
            "read the file again."
        )
    if count > 1 and not replace_all:
        raise ToolFailed(
            f"`old` occurs {count} times in {file.entry.path}. Give more of the text around the place, "
            "or set replace_all."
        )
    if len(data) + count * (len(after) - len(before)) > limits.EDIT_BYTES_MAX:
        raise ToolFailed(f"{file.entry.path} would become larger than {limits.EDIT_BYTES_MAX} bytes.")
    line = data.count(b"\n", 0, data.find(before)) + 1
    with workspace.put(path, bytes_max=limits.EDIT_BYTES_MAX, expected_etag=file.entry.etag) as upload:
        upload.write(data.replace(before, after))
        entry, _ = upload.commit()
    if count == 1:
        return f"Replaced 1 occurrence in {entry.path}, at line {line}."
    return f"Replaced {count} occurrences in {entry.path}, the first at line {line}."


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ToolFailed(f"`{name}` holds half of a surrogate pair, which is no text.") from error
