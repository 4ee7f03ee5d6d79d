"""A chat in a web app: the page talks to this backend, the backend to turnwire. The key stays here.

    python web_chat.py            # then open http://127.0.0.1:3000; PORT takes another port

Each visitor has a session. The answer is passed on as it comes; whoever reloads the page in the middle of one sees it
go on, since the turn belongs to the server, and to no connection.

Needs: pip install turnwire fastapi uvicorn, and POKEE_API and POKEE_KEY in the environment.
"""

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import Cookie, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from turnwire import (
    AsyncClient,
    AsyncSession,
    AsyncTurn,
    MessageError,
    MessageResumed,
    TextDelta,
    ToolExecuting,
    TurnwireError,
)

PAGE = Path(__file__).with_suffix(".html")
DAY_S = 24 * 3600

sessions: dict[str, str] = {}
"""Visitor → session. In earnest: a column of your table of users."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient() as app.state.tw:
        yield


app = FastAPI(lifespan=lifespan)


async def session_of(request: Request, visitor: str | None) -> AsyncSession | None:
    found = sessions.get(visitor or "")
    return await request.app.state.tw.sessions.get(found) if found else None


@app.get("/", response_class=HTMLResponse)
async def page(visitor: str | None = Cookie(None)) -> HTMLResponse:
    answer = HTMLResponse(PAGE.read_text("utf-8"))
    if visitor not in sessions:
        answer.set_cookie("visitor", secrets.token_urlsafe(24), httponly=True, samesite="strict", max_age=7 * DAY_S)
    return answer


@app.get("/messages")
async def messages(request: Request, visitor: str | None = Cookie(None)) -> list[dict[str, object]]:
    """The conversation so far; the answer that is being written comes by /running."""
    session = await session_of(request, visitor)
    if session is None:
        return []
    return [
        {"role": message.role, "text": message.text}
        for message in await session.messages()
        if message.status != "in_progress"
    ]


@app.post("/messages")
async def say(request: Request, visitor: str = Cookie()) -> Response:
    """Send a message; the answer is streamed as lines of JSON."""
    session = await session_of(request, visitor)
    if session is None:
        session = await request.app.state.tw.sessions.create(persistent=True, ttl=7 * DAY_S, workspace="private")
        sessions[visitor] = session.id
    return as_lines(session.send((await request.body()).decode("utf-8", "replace")))


@app.get("/running")
async def running(request: Request, visitor: str | None = Cookie(None)) -> Response:
    """The turn that runs, from its beginning; 204 without one."""
    session = await session_of(request, visitor)
    if session is None or not session.record.busy:
        return Response(status_code=204)
    return as_lines(session.follow())


def as_lines(turn: AsyncTurn) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        try:
            async for event in turn:
                match event:
                    case TextDelta(content=text):
                        yield line(add=text)
                    case ToolExecuting(name=name):
                        yield line(tool=name)
                    case MessageResumed():
                        yield line(text=turn.so_far().text)  # what was superseded is gone from it
                    case MessageError(error=why):
                        yield line(error=why)
        except TurnwireError as exc:
            yield line(error=str(exc))

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"})


def line(**fields: str) -> str:
    return json.dumps(fields) + "\n"


@app.exception_handler(TurnwireError)
async def refused(_: Request, exc: TurnwireError) -> JSONResponse:
    return JSONResponse({"error": str(exc)}, status_code=502)


if __name__ == "__main__":
    try:
        AsyncClient()
    except TurnwireError as exc:
        sys.exit(str(exc))
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3000")))
