"""Server-Sent Events as bytes come: an incremental decoder, and the heartbeats.

The decoder follows the WHATWG algorithm (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream):
lines end in LF, CR or CRLF, a byte order mark at the beginning is passed over, comments are ignored, several `data`
lines join with LF, an event without data is none, and an event that the stream breaks off in the middle of is dropped.
"""

from typing import NamedTuple

HEARTBEAT = b":\n\n"
"""Keeps a quiet, un-numbered stream alive. Its blank line keeps the next event's frame at exactly two lines."""

HEARTBEAT_NUMBERED = b":\n"
"""The same on a numbered stream. A blank line here would make httpx-sse hand out an empty event after an `id`."""

LINE_BYTES_MAX = 64 * 1024 * 1024
"""A line longer than this is no stream of ours: a reader must not be made to gather without bound."""

EVENT_SIZE_MAX = 64 * 1024 * 1024
"""Characters: the same for the `data` lines of one event."""


class ServerSentEvent(NamedTuple):
    """An event as the decoder gives it: `event` is its type, `id` the last event id so far."""

    event: str
    data: str
    id: str


class SSEDecoder:
    """Bytes in, events out: `feed()` takes them cut anywhere."""

    def __init__(self) -> None:
        self.last_event_id = ""
        """Where to resume: set by a blank line, as the specification has it. An `id` line alone, whose event a break
        then cuts off, must not count, or resuming would lose that event."""
        self._id = ""
        self._event = ""
        self._data: list[str] = []
        self._data_size = 0
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes. ValueError when a line or an event passes its limit."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):  # the second half of a CRLF that was cut in two
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = chunk.rfind(b"\n")
        if end < 0:
            self._keep(chunk)
            return []
        whole = b"".join([*self._tail, chunk[:end]])
        self._tail, self._tail_bytes = [], 0
        self._keep(chunk[end + 1 :])
        if self._at_start:
            self._at_start = False
            whole = whole.removeprefix(b"\xef\xbb\xbf")
        # A line feed is no part of a longer character, so whole lines decode as one text.
        return self._take_lines(whole.decode(errors="replace").split("\n"))

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._tail.append(piece)
            self._tail_bytes += len(piece)
            if self._tail_bytes > LINE_BYTES_MAX:
                raise ValueError(f"a line of the stream is longer than {LINE_BYTES_MAX} bytes")

    def _take_lines(self, lines: list[str]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        for line in lines:
            if line:
                self._take_line(line)
            else:
                self.last_event_id = self._id
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else "\n".join(self._data)
                    events.append(ServerSentEvent(self._event or "message", data, self._id))
                    self._data, self._data_size = [], 0
                self._event = ""
        return events

    def _take_line(self, line: str) -> None:
        field, _, value = line.partition(":")  # of a comment the field is empty
        if value.startswith(" "):
            value = value[1:]
        if field == "data":
            self._take_data(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value

    def _take_data(self, value: str) -> None:
        self._data.append(value)
        self._data_size += len(value) + 1
        if self._data_size > EVENT_SIZE_MAX:
            raise ValueError(f"an event of the stream is longer than {EVENT_SIZE_MAX} characters")
