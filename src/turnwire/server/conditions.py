"""Conditions and ranges of requests for files, after RFC 9110, sections 13 and 14; pure functions of headers."""

import re
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

import msgspec
from starlette.datastructures import Headers

from turnwire.protocol.errors import PreconditionFailed, RangeNotSatisfiable

# No repetition stands at its beginning: a search would try that at each place of a run, in quadratic time.
_TAG = re.compile(r'(W/)?"([^"]*)"\s*(?:,|$)')
_RANGE = re.compile(r"bytes=\s*([0-9]{0,100})-([0-9]{0,100})\s*")


class Tags(NamedTuple):
    """A list of entity tags; `any` is `*`."""

    any: bool
    strong: frozenset[str]
    weak: frozenset[str]

    def names(self, etag: str) -> bool:
        """Whether this state is named, where one that differs in no way would do (weak comparison)."""
        return self.any or etag in self.strong or etag in self.weak

    def names_exactly(self, etag: str) -> bool:
        """Whether this very state is named (strong comparison)."""
        return self.any or etag in self.strong


class Conditions(msgspec.Struct, frozen=True):
    """What a request says of the state that the file must have. None: nothing."""

    if_match: Tags | None
    if_none_match: Tags | None
    modified_since: int | None
    unmodified_since: int | None

    @classmethod
    def of(cls, headers: Headers) -> "Conditions":
        return cls(
            _tags(headers.getlist("if-match")),
            _tags(headers.getlist("if-none-match")),
            _date(headers.get("if-modified-since")),
            _date(headers.get("if-unmodified-since")),
        )

    def check(self, etag: str | None, modified: float) -> None:
        """Raise `PreconditionFailed` unless the file is as the request says. `etag` None: there is no file."""
        if self.if_match is not None:
            if etag is None or not self.if_match.names_exactly(etag):
                raise PreconditionFailed("If-Match: the file has another ETag by now, or is not there.")
        elif self.unmodified_since is not None and etag is not None and int(modified) > self.unmodified_since:
            raise PreconditionFailed("If-Unmodified-Since: the file was changed since.")

    def check_write(self, etag: str | None, modified: float) -> None:
        """As `check`, for a request that changes the file."""
        self.check(etag, modified)
        if self.if_none_match is not None and etag is not None and self.if_none_match.names(etag):
            raise PreconditionFailed("The file is there already (If-None-Match).")

    def is_known(self, etag: str, modified: float) -> bool:
        """Whether the caller has this state of the file already: 304."""
        if self.if_none_match is not None:
            return self.if_none_match.names(etag)
        return self.modified_since is not None and int(modified) <= self.modified_since

    @property
    def is_of_state(self) -> bool:
        """Whether a write that the file's state allowed is one of that very state, and of no later one."""
        if self.if_match is not None:
            return not self.if_match.any
        return self.unmodified_since is not None

    @property
    def expected_etag(self) -> str | None:
        """The one etag that a write asks for, "" for no file, None when it is none or more than one."""
        if self.if_none_match is not None and self.if_none_match.any:
            return ""
        if self.if_match is not None and not self.if_match.any and len(self.if_match.strong) == 1:
            return next(iter(self.if_match.strong))
        return None


def _tags(values: list[str]) -> Tags | None:
    if not values:
        return None
    text = ",".join(values)
    found = _TAG.findall(text)
    return Tags(
        text.strip() == "*",
        frozenset(tag for weak, tag in found if not weak),
        frozenset(tag for weak, tag in found if weak),
    )


def _date(value: str | None) -> int | None:
    """An HTTP date in epoch seconds; None for what is none, which is to be ignored."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def http_date(seconds: float) -> str:
    return formatdate(int(seconds), usegmt=True)


class Part(NamedTuple):
    """A range of a file: `length` bytes from `first`."""

    first: int
    length: int


def requested_part(headers: Headers, size: int, etag: str, modified: float) -> Part | None:
    """The one range of a file that a GET asks for; None for the whole file.

    Several ranges, another unit and what can't be read are answered by the whole file, which RFC 9110 allows.
    `RangeNotSatisfiable` when there is nothing of the file in the range.
    """
    values = headers.getlist("range")
    found = _RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or found.groups() == ("", "") or not _same_as_before(headers.get("if-range"), etag, modified):
        return None
    first_text, last_text = found.groups()
    if not first_text:
        length = min(int(last_text), size)
        first, last = size - length, size - 1
    else:
        first = int(first_text)
        last = min(int(last_text), size - 1) if last_text else size - 1
        if last_text and int(last_text) < first:
            return None
    if first > last:
        raise RangeNotSatisfiable(f"The range lies outside of the file, which has {size} bytes.")
    return Part(first, last - first + 1)


def _same_as_before(if_range: str | None, etag: str, modified: float) -> bool:
    """Whether the file is still the one that the caller has a part of."""
    if if_range is None:
        return True
    value = if_range.strip()
    if value.startswith(('"', "W/")):
        return value == f'"{etag}"'
    # A date tells nothing of a file that was changed within this second.
    return _date(value) == int(modified) and datetime.now(UTC).timestamp() - modified >= 1
