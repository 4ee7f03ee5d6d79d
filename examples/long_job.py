"""Start a job that takes long, go away, and come back to it.

    python long_job.py start "Read every file below in/ and write a summary of each to out/."
    python long_job.py watch sess_3f2a9c1d0b4e      # from any terminal, any time; Ctrl-C leaves, the job goes on
    python long_job.py list
    python long_job.py cancel sess_3f2a9c1d0b4e

The job is a turn: it belongs to the server, runs without anybody watching, and goes on when the server is restarted.
What is shown while you watch is the agent's own plan (its tool `update_plan`) and what it says of itself
(`set_status`).

Needs: pip install turnwire, and POKEE_API and POKEE_KEY in the environment.
"""

import argparse
import itertools
import sys

from turnwire import (
    Client,
    MessageCancelled,
    MessageError,
    MessageResumed,
    Session,
    TextDelta,
    ToolExecuting,
    Turn,
    TurnwireError,
)

DAY_S = 24 * 3600
INSTRUCTIONS = "Work in steps. Keep your plan up to date with update_plan, and say with set_status what you do now."


def start(tw: Client, task: str) -> int:
    session = tw.sessions.create(
        persistent=True, ttl=7 * DAY_S, metadata={"job": task[:200]}, instructions=INSTRUCTIONS, workspace="private"
    )
    turn = session.send(task)
    next(iter(turn))  # the first event: now it runs
    print(f"{session.id} has begun.")
    return watch(session, turn)


def watch(session: Session, turn: Turn) -> int:
    """Shows the progress of a turn to its end; 1 when it failed or was cancelled."""
    try:
        for event in turn:
            match event:
                case ToolExecuting(name="update_plan", input={"steps": steps}):
                    done = sum(step.get("state") == "done" for step in steps)
                    now = [step.get("step") for step in steps if step.get("state") == "in_progress"]
                    print(f"[{done}/{len(steps)}] {now[0] if now else ''}".rstrip())
                case ToolExecuting(name="set_status", input={"status": status}):
                    print(f"  … {status}")
                case ToolExecuting(name=name):
                    print(f"  · {name}")
                case TextDelta() if not sys.stdout.isatty():
                    pass  # the whole text comes at the end
                case TextDelta(content=text):
                    print(text, end="", flush=True)
                case MessageResumed():
                    print("  (the server was restarted; the job goes on)")
                case MessageError(error=why):
                    print(f"It failed: {why}", file=sys.stderr)
                    return 1
                case MessageCancelled():
                    print("It was cancelled.", file=sys.stderr)
                    return 1
    except KeyboardInterrupt:
        print(f"\nThe job goes on. To see it again: python {sys.argv[0]} watch {session.id}")
        return 0
    result = turn.result()
    print("" if sys.stdout.isatty() else result.text)
    print(f"Done: {result.usage.requests} requests to the model, {result.usage.total_tokens} tokens.")
    return 0


def show(tw: Client) -> int:
    for session in itertools.islice(tw.sessions.list(), 50):
        record = session.record
        if "job" in record.metadata:
            state = f"running, {record.metadata.get('status', '…')}" if record.busy else "ended"
            print(f"{record.id}  {state:20}  {record.metadata['job'].splitlines()[0]}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Long jobs, which run without anybody watching.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="start a job, and watch it").add_argument("task")
    commands.add_parser("watch", help="watch a job, from its beginning").add_argument("session")
    commands.add_parser("cancel", help="end a job").add_argument("session")
    commands.add_parser("list", help="the jobs that are kept")
    args = parser.parse_args()
    try:
        with Client() as tw:
            match args.command:
                case "start":
                    return start(tw, args.task)
                case "watch":
                    session = tw.sessions.get(args.session)
                    return watch(session, session.follow())
                case "cancel":
                    was_running = tw.sessions.get(args.session).cancel()
                    print("It is being cancelled." if was_running else "It had ended already.")
                    return 0
                case _:
                    return show(tw)
    except TurnwireError as exc:
        print(exc, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
