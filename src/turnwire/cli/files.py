"""`turnwire files`: the workspace of a session, from the shell."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import msgspec

from turnwire.chat.plain import moment, one_line, plain
from turnwire.cli import Failed
from turnwire.cli.access import Given, WrongUse, client
from turnwire.cli.tables import print_json, print_table

Progress = Callable[[int, int | None], object]

SHOWN_AFTER_S = 0.5
"""A bar that is gone again at once helps nobody."""


def list_files(given: Given, session_id: str, path: str, *, as_json: bool) -> None:
    rows = [("SIZE", "MODIFIED", "NAME")]
    with client(given) as tw:
        for file in tw.sessions.get(session_id).files.list(path):
            if as_json:
                print_json(msgspec.to_builtins(file))
                continue
            folder = file.type == "directory"
            when = moment(file.modified) if file.modified else ""
            rows.append(("-" if folder else str(file.size), when, one_line(file.name) + "/" * folder))
    if not as_json:
        print_table(rows)


def get(given: Given, session_id: str, path: str, to: str | None, *, as_zip: bool, overwrite: bool) -> None:
    """Download a file, or a folder as a zip; to `-` for stdout."""
    with client(given) as tw:
        files = tw.sessions.get(session_id).files
        if to == "-":
            if as_zip:
                raise WrongUse("A zip goes to a file: say which.")
            _to_stdout(files.stream(path))
            return
        name = Path(f"{path.strip('/') or 'workspace'}{'.zip' * as_zip}").name
        target = Path(to) / name if to is not None and Path(to).is_dir() else Path(to or name)
        if target.exists() and not overwrite:
            raise Failed(f"{target} is there already: say --overwrite, or where else it is to go.")
        with bar(name) as progress, said_plainly(target):
            written = (
                files.zip(path, target, progress=progress)
                if as_zip
                else files.download(path, target, progress=progress)
            )
    print(written)


def put(given: Given, session_id: str, sources: list[str], to: str | None, *, overwrite: bool) -> None:
    """Upload files; `-` is stdin, and needs a name."""
    if to is not None and len(sources) > 1 and not to.endswith("/"):
        raise WrongUse("--to: with several files it is a folder, and ends with a slash.")
    with client(given) as tw:
        files = tw.sessions.get(session_id).files
        for source in sources:
            name = Path(source).name
            path = f"{to}{name}" if to is not None and to.endswith("/") else to or name
            if source == "-":
                if to is None or to.endswith("/"):
                    raise WrongUse("--to: what comes from standard input needs a name.")
                written = files.upload(sys.stdin.buffer.read(), path, overwrite=overwrite)
            else:
                with bar(name) as progress, said_plainly(Path(source)):
                    written = files.upload(source, path, progress=progress, overwrite=overwrite)
            print(f"{one_line(written.path)}  {written.size}")


def remove(given: Given, session_id: str, paths: list[str]) -> None:
    with client(given) as tw:
        files = tw.sessions.get(session_id).files
        for path in paths:
            files.delete(path)
            print(f"deleted {one_line(path)}")


def _to_stdout(chunks: Iterable[bytes]) -> None:
    """The bytes as they are; to a terminal without what would control it."""
    for chunk in chunks:
        if sys.stdout.isatty():
            sys.stdout.write(plain(chunk.decode("utf-8", "replace")))
        else:
            sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


@contextlib.contextmanager
def said_plainly(path: Path) -> Generator[None]:
    """What the file system says against it, as a sentence."""
    try:
        yield
    except OSError as exc:
        raise Failed(f"{exc.filename or path}: {exc.strerror or exc}.") from exc


@contextlib.contextmanager
def bar(name: str) -> Generator[Progress | None]:
    """A progress bar on stderr for what takes longer than a moment; nothing where no terminal is."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(one_line(name, 40), total=None)
    began = time.monotonic()
    shown = False

    def note(done: int, total: int | None) -> None:
        nonlocal shown
        if not shown and time.monotonic() - began > SHOWN_AFTER_S:
            progress.start()
            shown = True
        progress.update(task, completed=done, total=total)

    try:
        yield note
    finally:
        if shown:
            progress.stop()
