"""Every bound of the engine, with its unit and its reason."""

PENDING_BYTES_MAX = 1024 * 1024
"""Bytes of a turn that may wait for their commit: beyond it the provider's socket is not read."""

TAIL_BYTES_MAX = 256 * 1024
"""Committed bytes of a running turn kept in memory for followers that are a little behind; others read the log."""

PAGE_BYTES_MAX = 256 * 1024
"""Bytes of the log that a follower reads at a time: what a slow reader of a long turn costs in memory."""

TOOL_RESULT_CHARS_MAX = 256 * 1024
"""Characters of a tool's result: more than a model can use; what is over is cut, and the result says so."""

TOOL_TIME_LIMIT_S = 120.0
"""Seconds that a tool call may take when its tool names no limit of its own."""

STEPS_MAX = 200
"""Model requests of a turn: an agent that has not come to an end by then goes in circles."""

TOOL_CALLS_MAX = 1000
"""Tool calls of a turn, for the same reason."""

TOKENS_MAX = 20_000_000
"""Tokens of a turn, all of its requests together: bounds what one message can cost."""

IMAGE_BYTES_MAX = 3_750_000
"""Bytes of an image that a tool returns: 5 MB as base64, the least that the large providers take (Anthropic)."""

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Media types of images that all large providers take."""

IMAGES_MAX = 20
"""Images that the model is given at once: with more, Anthropic takes only smaller ones. Older ones are left out."""

IMAGES_BYTES_MAX = 12_000_000
"""Bytes of them all: 16 MB as base64, and requests of 20 MB are the least that the large providers take (Google)."""

IMAGES_HELD_BYTES_MAX = 64_000_000
"""Bytes of images in the stored part of a conversation that no summary stands for: each turn reads them all."""

PARALLEL_CALLS_MAX = 16
"""Tool calls of one turn that run at once; more wait for a place."""

REQUEST_ATTEMPTS_MAX = 4
"""How often a model request is made before the step has shown anything: rides out a short overload."""

RETRY_DELAY_S = 0.5
"""Seconds before the second attempt; doubles with each."""

RETRY_DELAY_MAX_S = 30.0
"""The longest wait between two attempts. A provider that asks for more is not waited for: the turn says so."""

ERROR_CHARS_MAX = 600
"""Characters of a `message.error`: a sentence for people, not a dump."""

STORE_RETRY_DELAY_S = 0.25
"""Seconds before what the store refused (a full disk) is handed in again; doubles up to the next."""

STORE_RETRY_DELAY_MAX_S = 5.0
"""The longest wait before the store is tried again: how late a turn notices that there is room."""

RETRY_AFTER_DRAINING_S = 5
"""Seconds that a caller is asked to wait while the server stops: about what a restart takes."""

SWEEP_INTERVAL_S = 5.0
"""Seconds between two sweeps: how late a session past its time goes."""

SWEEP_INTERVAL_MIN_S = 0.25
"""Seconds between two sweeps at the least, however short the times that are set: a sweep costs some queries."""

SWEEP_BITE = 50
"""Sessions or turns that one bite of a sweep takes: some milliseconds of the writer's time."""

RETRY_AFTER_LIMIT_S = 5
"""Seconds that a caller is asked to wait at a limit of running turns: a short turn's length."""

TICKET_S = 600
"""Seconds behind a turn's end for which its tickets work: time for a browser to come back."""

FUNCTIONS_MAX = 128
"""Functions that a session may declare: as many as the large providers take."""

FUNCTION_DESCRIPTION_BYTES_MAX = 16 * 1024
"""Bytes of a function's description: every model request carries them all."""

ANSWERS_POLL_S = 1.0
"""Seconds after which a turn that waits looks by itself for answers: how late one that another server took may be."""

REMOTE_POLL_S = 0.5
"""Seconds after which the log of a turn that runs on another server is looked at again: how late its events may be
here."""

CONTEXTS_KEPT = 256
"""Models of which it is remembered that they take less than was thought."""

CONTEXT_SHARE_MAX = 0.8
"""The share of a model's context that a request may fill before the conversation is compacted: the rest is for the
answer, and for what the estimate did not know."""

CONTEXT_SHARE_KEPT = 0.4
"""What the newest part of a conversation may take of that limit when the rest is summed up: so that it is long until
the next time, and most of what the agent works with stays as it is."""

OUTPUT_SHARE_MAX = 0.25
"""The share of a model's context that the output of one tool call may take."""

OLD_OUTPUT_BYTES = 1024
"""Bytes that are given of an old output of a tool: enough to see what it was."""

TOKENS_PER_BYTE = 0.33
"""The estimate where no usage tells: English is some 4 bytes of UTF-8 to a token, code and other scripts 3."""

MEDIA_BYTES = 5000
"""What an image or a file counts as in estimates: providers scale images down to some 1,600 tokens."""

SUMMARY_TOKENS_MAX = 4096
"""Tokens of a summary: some 3,000 words, which hold what matters of any conversation."""

SUMMARY_SHARE_KEPT = 0.15
"""The share of a model's context that a summary may take: a longer one is cut off, whatever the model says."""

SUMMARY_ITEM_BYTES = 6000
"""Bytes of one message or output that the model is shown when it sums up: what is longer is mostly data."""

SUMMARY_SHOWN_BYTES_MIN = 4000
"""Bytes that a model must take at once for a summary; with less there is nothing to sum up."""

SUMMARY_SHARE_MAX = 0.6
"""The share of a model's context that it is shown at once when it sums up; more is summed up in several requests."""

AGENTS_FILE_BYTES_MAX = 32 * 1024
"""Bytes of a workspace's AGENTS.md that each model request carries: some 8,000 tokens, more than good ones have."""
