"""Tools by which an agent says where it stands: update_plan and set_status."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic_ai import RunContext
from pydantic_ai.toolsets import FunctionToolset

from turnwire.seams.tool import REPEATABLE, ToolContext, ToolFailed
from turnwire.tools import limits

Context = RunContext[ToolContext]

MARKS = {"pending": "[ ]", "in_progress": "[>]", "done": "[x]"}


class PlanStep(BaseModel):
    """A step of a plan."""

    step: str = Field(min_length=1, max_length=limits.PLAN_STEP_CHARS_MAX, description="What is done, in a few words.")
    state: Literal["pending", "in_progress", "done"]


class ProgressTools(FunctionToolset[ToolContext]):
    """Both tools; one instance serves all sessions."""

    def __init__(self) -> None:
        super().__init__(id="progress", max_retries=0)
        functions: list[Any] = [self._update_plan, self._set_status]
        for function in functions:
            self.add_function(
                function, name=function.__name__.removeprefix("_"), metadata={REPEATABLE: True}, sequential=False
            )

    async def _update_plan(
        self,
        ctx: Context,
        steps: Annotated[
            list[PlanStep],
            Field(min_length=1, max_length=limits.PLAN_STEPS_MAX, description="All steps, in order, done ones too."),
        ],
    ) -> str:
        """Write down your plan, or its new state. Give the whole plan each time; at most one step is in_progress."""
        if sum(step.state == "in_progress" for step in steps) > 1:
            raise ToolFailed("At most one step can be in_progress: the one that you work on now.")
        return "\n".join(f"{MARKS[step.state]} {' '.join(step.step.split())}" for step in steps)

    async def _set_status(
        self,
        ctx: Context,
        status: Annotated[
            str,
            Field(max_length=limits.STATUS_CHARS_MAX, description="A few words, such as: reading 12 of 40 files."),
        ],
    ) -> str:
        """Tell whoever watches this session, in a few words, what you do now. Empty: nothing."""
        await ctx.deps.set_status(" ".join(status.split()))
        return "The status is set."
