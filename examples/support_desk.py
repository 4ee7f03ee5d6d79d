"""A support desk: the agent looks orders up by itself, and asks you before it gives money back.

    python support_desk.py
    > Order 1042 never came. Can I have my money back?

`order_status` and `refund` are plain functions of this program: the model calls them, they run here. `refund` asks
whoever sits at the terminal. Writing files is a tool of the server's own; for that, too, the session asks for approval.

Needs: pip install turnwire, and POKEE_API and POKEE_KEY in the environment.
"""

import sys

from turnwire import Client, MessageError, TextDelta, ToolCallRequested, ToolExecuting, ToolResult, Turn, TurnwireError

ORDERS = {"1042": {"status": "lost in the post", "paid": 34.0}, "1043": {"status": "delivered", "paid": 12.5}}
"""Your database, in earnest."""


def yes(question: str) -> bool:
    """Ask the person at the terminal. No answer is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def order_status(order: str) -> dict[str, object]:
    """What became of an order, and what was paid for it, in euros."""
    if order not in ORDERS:
        raise LookupError(f"There is no order {order}.")
    return ORDERS[order]


def refund(order: str, euros: float) -> str:
    """Give money back for an order.

    Args:
        euros: At most what was paid.
    """
    paid = order_status(order)["paid"]
    if not isinstance(paid, float) or euros > paid:
        raise ValueError(f"Only {paid} euros were paid for the order {order}.")
    if not yes(f"Refund {euros:.2f} euros for the order {order}?"):
        return "The refund was refused by the person in charge. Tell the customer so."
    return f"{euros:.2f} euros are on their way."


def on_approval(call: ToolCallRequested) -> bool | tuple[bool, str]:
    """The server's own tools that the session named."""
    return yes(f"Let it use {call.name} with {call.input}?") or (False, "Not allowed by the person in charge.")


def main() -> int:
    try:
        with Client() as tw:
            session = tw.sessions.create(
                workspace="private",
                tools=[order_status, refund],
                approvals=["write_file"],
                on_approval=on_approval,
                instructions="You work at the support desk of a bakery. Look orders up before you promise anything.",
            )
            while True:
                try:
                    question = input("> ")
                except EOFError:
                    return 0
                if question.strip():
                    answer(session.send(question.replace("\\n", "\n")))
    except TurnwireError as exc:
        print(exc, file=sys.stderr)
        return 1


def answer(turn: Turn) -> None:
    for event in turn:
        match event:
            case TextDelta(content=text):
                print(text, end="", flush=True)
            case ToolExecuting(name=name, input=value):
                print(f"\n[{name} {value}]")
            case ToolResult(content=text, is_error=True):
                print(f"[it failed: {text}]")
            case MessageError(error=text):
                print(f"\n{text}", file=sys.stderr)
    print()


if __name__ == "__main__":
    sys.exit(main())
