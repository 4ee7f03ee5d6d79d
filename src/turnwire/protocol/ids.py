"""Identifiers: a prefix that says what it names, and random hexadecimal digits.

Random, so that they can be made before the row that they name is written, and are never used twice; but for a session
that is made with an idempotency key, which its id stands for.
"""

import hashlib
import re
import secrets

SESSION_ID = re.compile(r"sess_[0-9a-f]{12}")
RESPONSE_ID = re.compile(r"msg_[0-9a-f]{24}")
CALL_ID = re.compile(r"call_[0-9a-f]{24}")


def new_session_id() -> str:
    """`sess_` and 12 hex digits."""
    return f"sess_{secrets.token_hex(6)}"


def session_id_of(tenant: str, idempotency_key: str) -> str:
    """The id of the session that this tenant makes with this key: the same each time, and so on every server."""
    digest = hashlib.sha256(b"session\0" + tenant.encode() + b"\0" + idempotency_key.encode("utf-8", "surrogatepass"))
    return f"sess_{digest.hexdigest()[:12]}"


def new_response_id() -> str:
    """`msg_` and 24 hex digits: names a turn, its response, and the assistant's message that it makes."""
    return f"msg_{secrets.token_hex(12)}"


def new_message_id() -> str:
    """`msg_` and 24 hex digits: names a user's message."""
    return f"msg_{secrets.token_hex(12)}"


def new_call_id() -> str:
    """`call_` and 24 hex digits: names one call of a tool. Ours: providers repeat theirs."""
    return f"call_{secrets.token_hex(12)}"


def new_request_id() -> str:
    """`req_` and 24 hex digits: names one HTTP request."""
    return f"req_{secrets.token_hex(12)}"
