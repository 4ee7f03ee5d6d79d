"""The agent's file tools: read_file, write_file, edit_file, list_files, search_files.

All stand on the session's `Workspace`, which no path leads out of. The work is done in worker threads of their own;
a call that is cancelled is told so by its `Stop`, and ends at its next look at it.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import anyio
from anyio import to_thread
from pydantic import Field
from pydantic_ai import RunContext
from pydantic_ai.messages import BinaryContent
from pydantic_ai.toolsets import FunctionToolset

from turnwire.seams.tool import REPEATABLE, TIME_LIMIT_S, ToolContext, ToolFailed
from turnwire.seams.workspace import WorkspaceError
from turnwire.tools import limits
from turnwire.tools.editing import edit, read, write
from turnwire.tools.finding import list_below, search
from turnwire.tools.stop import Stop

Result = TypeVar("Result")
Context = RunContext[ToolContext]

Path = Annotated[str, Field(description="Path of the file, relative to the workspace.")]
Folder = Annotated[str, Field(description="Folder, relative to the workspace. Default: the whole workspace.")]


class FileTools(FunctionToolset[ToolContext]):
    """The five file tools. One instance serves all sessions: whose files they are is in the context of each call."""

    def __init__(self) -> None:
        super().__init__(id="files", max_retries=0)
        self._threads = anyio.CapacityLimiter(limits.FILE_THREADS_MAX)
        functions: list[tuple[Any, bool]] = [
            (self._read_file, True),
            (self._write_file, False),
            (self._edit_file, False),
            (self._list_files, True),
            (self._search_files, True),
        ]
        for function, repeatable in functions:
            self.add_function(
                function,
                name=function.__name__.removeprefix("_"),
                metadata={REPEATABLE: repeatable, TIME_LIMIT_S: limits.FILE_TIME_LIMIT_S},
            )

    async def _read_file(
        self,
        ctx: Context,
        path: Path,
        offset: Annotated[int, Field(ge=1, description="First line to read, from 1.")] = 1,
        limit: Annotated[int, Field(ge=1, description="Most lines to read.")] = limits.READ_LINES_MAX,
    ) -> str | list[str | BinaryContent]:
        """Read a text file, or look at an image (png, jpeg, gif, webp). Text comes as it is; a note in brackets at
        the end says what was left out."""
        return await self._run(lambda stop: read(ctx.deps.workspace, path, offset, limit, stop))

    async def _write_file(
        self,
        ctx: Context,
        path: Path,
        content: Annotated[str, Field(description="The whole new content of the file.")],
    ) -> str:
        """Write a text file: make it, with missing folders, or replace it whole. To change a part, use edit_file."""
        return await self._run(lambda _: write(ctx.deps.workspace, path, content))

    async def _edit_file(
        self,
        ctx: Context,
        path: Path,
        old: Annotated[str, Field(min_length=1, description="Text to replace, exactly as it is in the file.")],
        new: Annotated[str, Field(description="Text to put in its place.")],
        replace_all: Annotated[bool, Field(description="Replace every occurrence, not just the only one.")] = False,
    ) -> str:
        """Replace a text in a file. `old` must occur exactly once, unless replace_all is true."""
        return await self._run(lambda _: edit(ctx.deps.workspace, path, old, new, replace_all))

    async def _list_files(
        self,
        ctx: Context,
        path: Folder = "",
        recursive: Annotated[bool, Field(description="Also list what is in folders below.")] = False,
    ) -> str:
        """List a folder: a path a line, folders with a final slash, files with their size in bytes."""
        return await self._run(lambda stop: list_below(ctx.deps.workspace, path, recursive, stop))

    async def _search_files(
        self,
        ctx: Context,
        pattern: Annotated[str, Field(min_length=1, description="RE2 regular expression, matched within lines.")],
        path: Annotated[str, Field(description="Folder or file to search. Default: the whole workspace.")] = "",
        glob: Annotated[str, Field(description="Only files of this name or path, such as *.py or src/**/*.ts.")] = "",
    ) -> str:
        """Search text files for a regular expression. Gives path:line: text for each matching line."""
        return await self._run(lambda stop: search(ctx.deps.workspace, pattern, path, glob, stop))

    async def _run(self, work: Callable[[Stop], Result]) -> Result:
        """Do the work in a thread; what the workspace says of a path becomes the tool's failure."""
        stop = Stop(limits.FILE_TIME_S)

        def begin() -> Result:
            stop.begin()
            return work(stop)

        try:
            return await to_thread.run_sync(begin, abandon_on_cancel=True, limiter=self._threads)
        except WorkspaceError as error:
            raise ToolFailed(str(error)) from error
        finally:
            stop.abandon()
