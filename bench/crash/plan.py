"""The plan of a run: what the turns do, and when the server is killed. All of it follows from the seed."""

import random
from dataclasses import dataclass
from typing import Literal

Aim = Literal["text", "thinking", "tool input", "executing", "commit", "any"]
AIMS: tuple[Aim, ...] = ("text", "tool input", "executing", "commit", "thinking", "any")
"""What is to be open when the server is killed: `commit` is the moment between a commit and the sending of it, `any`
a moment that looks at nothing."""

AIM_WEIGHTS = (5, 5, 5, 5, 2, 2)


@dataclass(frozen=True)
class Kill:
    """A kill: `delay_s` after the server is ready, or at the commit number `commit` since its start."""

    aim: Aim
    delay_s: float
    jitter_s: float
    commit: int


def kills_of(seed: int, count: int) -> list[Kill]:
    draw = random.Random(f"kills {seed}")
    return [
        Kill(
            aim=draw.choices(AIMS, AIM_WEIGHTS)[0],
            delay_s=draw.uniform(0.05, 0.9),
            jitter_s=draw.uniform(0.0, 0.03),
            commit=draw.randint(10, 150),
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Call:
    """A call of a step. `tool`: `count` must not run twice, `look` may; both take `seconds`."""

    tool: Literal["count", "look"]
    seconds: float


@dataclass(frozen=True)
class Step:
    """A response of the model: words of thinking and of text, then calls, their inputs at `rate` pieces a second."""

    thinking: int
    text: int
    calls: list[Call]
    rate: float


def turn_of(seed: int, session: int, number: int) -> list[Step]:
    """The steps of a session's turn. The last one calls nothing."""
    draw = random.Random(f"turn {seed} {session} {number}")
    steps = [
        Step(
            thinking=draw.choice((0, 4, 8)),
            text=draw.choice((0, 6, 12)),
            calls=[
                Call("count" if draw.random() < 0.7 else "look", draw.uniform(0.02, 0.5))
                for _ in range(draw.randint(1, 3))
            ],
            rate=draw.uniform(30, 60),
        )
        for _ in range(draw.randint(1, 3))
    ]
    return [*steps, Step(thinking=0, text=draw.randint(5, 20), calls=[], rate=draw.uniform(20, 60))]
