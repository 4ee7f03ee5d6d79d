"""The agent's shell: `bash` runs a command in the sandbox, `bash_task` looks after one that runs in the background.

A command ends with its call, whatever it has started; a background task ends with its session. Neither may be made
again after a crash: nothing tells what it has done.
"""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field
from pydantic_ai import RunContext
from pydantic_ai.toolsets import FunctionToolset

from turnwire.seams.sandbox import Command, Ending, Running, Sandbox, SandboxError
from turnwire.seams.tool import REPEATABLE, TIME_LIMIT_S, ToolContext, ToolFailed
from turnwire.seams.workspace import WorkspaceError
from turnwire.tools import limits
from turnwire.tools.output import Output

Context = RunContext[ToolContext]


class _Task:
    """A command that runs in the background, and what it wrote that nobody has seen yet."""

    def __init__(self, running: Running, output: Output) -> None:
        self.running, self.output = running, output


class ShellTools(FunctionToolset[ToolContext]):
    """`bash` and `bash_task`. One instance serves all sessions."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(id="shell", max_retries=0)
        self._sandbox = sandbox
        self._tasks: dict[str, dict[int, _Task]] = {}
        functions: list[tuple[Any, float]] = [
            (self._bash, limits.BASH_TIME_LIMIT_S),
            (self._bash_task, limits.TASK_WAIT_MAX_S + limits.FILE_TIME_LIMIT_S),
        ]
        for function, time_limit_s in functions:
            self.add_function(
                function,
                name=function.__name__.removeprefix("_"),
                metadata={REPEATABLE: False, TIME_LIMIT_S: time_limit_s},
            )

    @property
    def available(self) -> bool:
        """Whether commands can be run; if not, these tools are not to be offered."""
        return self._sandbox.status.available

    async def end_session(self, session_id: str) -> None:
        """End all that runs for a session, and forget what it wrote."""
        self._tasks.pop(session_id, None)
        await self._sandbox.end_session(session_id)

    async def _bash(
        self,
        ctx: Context,
        command: Annotated[str, Field(min_length=1, description="The command, or a script of several lines.")],
        timeout_s: Annotated[
            float, Field(gt=0, le=limits.BASH_TIME_MAX_S, description="Seconds after which the command is ended.")
        ] = limits.BASH_TIME_S,
        background: Annotated[bool, Field(description="Don't wait for the end; look later with bash_task.")] = False,
    ) -> str:
        """Run a command with bash, in /workspace. Gives its output, and its exit status if it isn't 0."""
        _check(command)
        if background:
            return await self._begin_task(ctx.deps, command)
        output = Output()
        running = await self._start(ctx.deps, command, output, timeout_s)
        try:
            ending = await running.wait()
        finally:
            running.kill()
        return _result(output, ending, timeout_s)

    async def _bash_task(
        self,
        ctx: Context,
        task: Annotated[int, Field(description="Number of the task, as bash gave it.")],
        wait_s: Annotated[
            float, Field(ge=0, le=limits.TASK_WAIT_MAX_S, description="Seconds to wait for its end first.")
        ] = 0.0,
        stop: Annotated[bool, Field(description="End the task.")] = False,
    ) -> str:
        """Look at a background task: what it wrote since the last look, and whether it still runs."""
        tasks = self._tasks.get(ctx.deps.session_id, {})
        found = tasks.get(task)
        if found is None:
            known = ", ".join(map(str, tasks)) or "none"
            raise ToolFailed(f"There is no background task {task}. There are: {known}.")
        if stop:
            found.running.kill()
        return await self._look(tasks, task, limits.FILE_TIME_LIMIT_S if stop else wait_s)

    async def _begin_task(self, deps: ToolContext, command: str) -> str:
        tasks = self._tasks.setdefault(deps.session_id, {})
        if len(tasks) >= limits.TASKS_MAX:
            ended = next((number for number, task in tasks.items() if task.running.ending is not None), None)
            if ended is None:
                raise ToolFailed(f"{limits.TASKS_MAX} background tasks run already: stop one of them first.")
            del tasks[ended]
        output = Output()
        running = await self._start(deps, command, output, None)
        number = max(tasks, default=0) + 1
        tasks[number] = _Task(running, output)
        return await self._look(tasks, number, limits.TASK_FIRST_LOOK_S)

    async def _look(self, tasks: dict[int, _Task], number: int, wait_s: float) -> str:
        task = tasks[number]
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await task.running.wait()
        ending = task.running.ending
        text = task.output.take().text()
        if ending is None:
            return _with_note(text, f"[Background task {number} runs; it ends with the session at the latest.]")
        tasks.pop(number, None)
        how = "was stopped" if ending.stopped == "killed" else f"ended with exit status {ending.exit_code}"
        return _with_note(text, f"[Background task {number} {how}{_why(ending)}.]")

    async def _start(self, deps: ToolContext, command: str, output: Output, wall_s: float | None) -> Running:
        try:
            return await self._sandbox.start(
                Command(
                    argv=("bash", "-c", command),
                    tenant=deps.tenant,
                    session_id=deps.session_id,
                    workspace=deps.workspace,
                    wall_s=wall_s,
                    network=deps.network,
                ),
                output.add,
            )
        except (SandboxError, WorkspaceError) as error:
            raise ToolFailed(str(error)) from error


def _check(command: str) -> None:
    size = len(command.encode())
    if "\0" in command:
        raise ToolFailed("`command` holds a NUL character, which no command can.")
    if size > limits.COMMAND_BYTES_MAX:
        raise ToolFailed(
            f"`command` is {size} bytes long; {limits.COMMAND_BYTES_MAX} is the most. "
            "Write a script with write_file, and run that."
        )


def _result(output: Output, ending: Ending, timeout_s: float) -> str:
    text = output.text()
    match ending.stopped:
        case None if ending.exit_code == 0:
            return text or "[No output.]"
        case None:
            return _with_note(text, f"[Exit status {ending.exit_code}.]")
        case "time":
            raise ToolFailed(
                _with_note(
                    text,
                    f"[The command was ended: it took longer than {timeout_s:g} seconds. "
                    "A larger timeout_s, or background, lets it run longer.]",
                )
            )
        case _:
            raise ToolFailed(_with_note(text, f"[The command was ended{_why(ending)}.]"))


def _why(ending: Ending) -> str:
    return {
        "output": ": it wrote too much output (write it into a file instead)",
        "memory": ": it took more memory than it may, all its processes and the files in /tmp together",
        "disk": ": the disk is nearly full",
        "quota": ": the workspace holds more than it may (delete something; nothing can be added until then)",
    }.get(ending.stopped or "", "")


def _with_note(text: str, note: str) -> str:
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{note}"
