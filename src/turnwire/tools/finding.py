"""What list_files and search_files do; synchronous, over a `Workspace`.

Both give what they have when a limit is reached, and say so in a note in brackets.
"""

from collections.abc import Iterator

from turnwire.seams.workspace import Entry, Workspace, WorkspaceError
from turnwire.tools import limits
from turnwire.tools.editing import is_binary
from turnwire.tools.patterns import Pattern, compile_glob, compile_pattern, find_lines
from turnwire.tools.stop import Stop

# Version control's own store: thousands of packed files, of no use to a reader. Asked for by its path, it is shown.
_NOT_ENTERED = ".git"


class _Walk:
    """All entries below a folder, each folder by name, its content after it."""

    def __init__(self, workspace: Workspace, stop: Stop) -> None:
        self._workspace, self._stop = workspace, stop
        self.seen = 0
        self.unreadable = 0
        self.incomplete = False

    def below(self, path: str, *, recursive: bool = True) -> Iterator[Entry]:
        """Raises WorkspaceError for `path` itself; folders below it that can't be read are counted."""
        stack = self._entries(path)
        while stack:
            if self._stop or self.seen >= limits.WALK_ENTRIES_MAX:
                self.incomplete = True
                return
            entry = stack.pop()
            self.seen += 1
            yield entry
            if recursive and entry.type == "directory" and entry.name != _NOT_ENTERED:
                try:
                    stack += self._entries(entry.path)
                except WorkspaceError:
                    self.unreadable += 1

    def _entries(self, path: str) -> list[Entry]:
        listing = self._workspace.list(path, entries_max=limits.FOLDER_ENTRIES_MAX)
        self.incomplete = self.incomplete or not listing.complete
        return listing.entries[::-1]

    def notes(self) -> list[str]:
        notes: list[str] = []
        if self.incomplete:
            notes.append("too much to look at all of it: name a folder further down")
        if self.unreadable:
            notes.append(f"{self.unreadable} folders could not be read")
        return notes


def list_below(workspace: Workspace, path: str, recursive: bool, stop: Stop) -> str:
    walk = _Walk(workspace, stop)
    lines: list[str] = []
    notes: list[str] = []
    for entry in walk.below(path, recursive=recursive):
        if len(lines) == limits.LIST_ENTRIES_MAX:
            notes.append(f"only the first {limits.LIST_ENTRIES_MAX} are shown")
            break
        lines.append(f"{entry.path}/" if entry.type == "directory" else f"{entry.path}\t{entry.size}")
    if not lines:
        lines.append("[The folder is empty.]")
    return _with_notes(lines, notes + walk.notes())


def search(workspace: Workspace, pattern: str, path: str, glob: str, stop: Stop) -> str:
    return _Search(workspace, compile_pattern(pattern), compile_glob(glob) if glob else None, stop).run(path)


class _Search:
    def __init__(self, workspace: Workspace, pattern: Pattern, glob: Pattern | None, stop: Stop) -> None:
        self._workspace, self._pattern, self._glob, self._stop = workspace, pattern, glob, stop
        self._lines: list[str] = []
        self._too_large = 0
        self._unreadable = 0

    def run(self, path: str) -> str:
        walk = _Walk(self._workspace, self._stop)
        top = self._workspace.stat(path)
        for entry in [top] if top.type == "file" else walk.below(path):
            if entry.type == "file" and (self._glob is None or self._glob.fullmatch(entry.path.encode())):
                self._search_file(entry)
            if self._stop or len(self._lines) > limits.SEARCH_MATCHES_MAX:
                break
        return _with_notes(
            self._lines[: limits.SEARCH_MATCHES_MAX] or ["[No line matches.]"], self._notes() + walk.notes()
        )

    def _search_file(self, entry: Entry) -> None:
        if entry.size > limits.SEARCH_FILE_BYTES_MAX:
            self._too_large += 1
            return
        try:
            with self._workspace.open(entry.path) as file:
                if is_binary(file.stream):
                    return
                text = file.stream.read(limits.SEARCH_FILE_BYTES_MAX)
        except (WorkspaceError, OSError):  # Deleted, replaced or made unreadable since it was listed.
            self._unreadable += 1
            return
        for found in find_lines(self._pattern, text):
            if found is not None:
                number, start, end, at = found
                self._lines.append(f"{entry.path}:{number}: {_excerpt(text, start, end, at)}")
            if self._stop or len(self._lines) > limits.SEARCH_MATCHES_MAX:
                return

    def _notes(self) -> list[str]:
        notes: list[str] = []
        if len(self._lines) > limits.SEARCH_MATCHES_MAX:
            notes.append(f"only the first {limits.SEARCH_MATCHES_MAX} lines are shown")
        elif self._stop:
            notes.append(f"stopped after {limits.FILE_TIME_S:g} s: not everything was searched")
        if self._too_large:
            notes.append(f"{self._too_large} files larger than {limits.SEARCH_FILE_BYTES_MAX} bytes were not searched")
        if self._unreadable:
            notes.append(f"{self._unreadable} files could not be read")
        return notes


def _excerpt(text: bytes, start: int, end: int, at: int) -> str:
    """The line, or of a long one the part around the match, with … where it was cut."""
    first = start if end - start <= limits.SEARCH_LINE_BYTES_MAX else max(start, at - limits.SEARCH_LINE_BYTES_MAX // 3)
    last = min(end, first + limits.SEARCH_LINE_BYTES_MAX)
    shown = text[first:last].decode("utf-8", "replace").rstrip("\r")
    return f"{'…' if first > start else ''}{shown}{'…' if last < end else ''}"


def _with_notes(lines: list[str], notes: list[str]) -> str:
    return "\n".join([*lines, *([f"[{'; '.join(notes)}]"] if notes else [])])
