"""The limits of the server's own tools. Each has its unit in its name, and its reason."""

READ_LINES_MAX = 2000
"""Lines that one `read_file` gives: most source files whole; the model reads on with `offset`."""

READ_BYTES_MAX = 64 * 1024
"""Bytes of text that one `read_file` gives: some 16,000 tokens, a bearable share of any model's context."""

READ_LINE_BYTES_MAX = 2000
"""Bytes shown of one line: a minified file is one line of a megabyte, and nobody wants it all."""

READ_SCANNED_BYTES_MAX = 256 * 1024 * 1024
"""Bytes passed over to reach `offset`: a second or two of reading, where a sparse file may claim terabytes."""

READ_IMAGE_BYTES_MAX = 3_750_000
"""Bytes of an image that `read_file` shows: 5 MB as base64, the least that the large providers take (Anthropic)."""

READ_IMAGE_SIDE_MAX = 8000
"""Pixels of an image's longer side: Anthropic refuses more. All of them scale down to some 1,600 pixels anyway."""

BINARY_SNIFF_BYTES = 8192
"""A NUL byte in so much of a file's beginning makes it binary: the rule, and the length, of git and grep."""

WRITE_BYTES_MAX = 4 * 1024 * 1024
"""Content of one `write_file`: the wire's own limit for a JSON body, and more than any model writes in one call."""

EDIT_BYTES_MAX = 8 * 1024 * 1024
"""Size of a file before and after `edit_file`: it is held in memory, twice, by each call that runs."""

LIST_ENTRIES_MAX = 1000
"""Entries that one `list_files` gives: some 10,000 tokens."""

FOLDER_ENTRIES_MAX = 10_000
"""Entries of one folder that a recursive walk looks at: bounds what one generated folder can cost."""

WALK_ENTRIES_MAX = 200_000
"""Entries of one recursive walk: a large repository with its dependencies, and a few seconds' work."""

PATTERN_CHARS_MAX = 1000
"""Length of a search pattern or glob: far beyond what people write; compiling is linear in it."""

PATTERN_MEMORY_BYTES_MAX = 1024 * 1024
"""Memory of a compiled pattern. It also bounds the pattern's program, to some 10,000 instructions, and so the time
that a window of text can take when the fast automaton does not fit."""

SEARCH_WINDOW_BYTES = 64 * 1024
"""Text matched between two looks at the clock: the worst patterns found took 0.7 s for so much (2 cores, 2026)."""

SEARCH_FILE_BYTES_MAX = 10 * 1024 * 1024
"""Larger files are not searched, and counted in the result: they are data, and each is held in memory."""

SEARCH_MATCHES_MAX = 200
"""Matching lines that one search gives; more mean that the pattern is too wide to be of use."""

SEARCH_LINE_BYTES_MAX = 300
"""Bytes shown of a matching line, around the match."""

FILE_TIME_S = 10.0
"""A search or listing gives what it has after so long: an agent rather narrows it than waits."""

FILE_TIME_LIMIT_S = 30.0
"""The engine's limit for one call of a file tool, queueing included: three times what any of them takes itself."""

FILE_THREADS_MAX = 8
"""Worker threads for file tools, apart from the event loop's own, so that slow searches hold up only each other."""

COMMAND_BYTES_MAX = 100_000
"""Length of a `bash` command: Linux takes 128 KiB in one argument (MAX_ARG_STRLEN). A longer script is a file."""

BASH_TIME_S = 120.0
"""A command ends after so long when the call says nothing: most builds and tests are done by then."""

BASH_TIME_MAX_S = 3600.0
"""The longest that a call may ask for; what runs longer is a background task, which doesn't hold up its turn."""

BASH_TIME_LIMIT_S = BASH_TIME_MAX_S + 30.0
"""The engine's limit for one call of `bash`: behind the command's own, which tells the model more."""

OUTPUT_HEAD_BYTES = 16 * 1024
"""Bytes shown of the beginning of a command's output: what was done."""

OUTPUT_TAIL_BYTES = 32 * 1024
"""Bytes shown of its end, where errors and results are. Together some 12,000 tokens."""

TASKS_MAX = 8
"""Background tasks of a session that are remembered: a few servers and watchers; ended ones make room."""

TASK_FIRST_LOOK_S = 1.0
"""A background task that ends within this is told at once: a mistyped command does."""

TASK_WAIT_MAX_S = 60.0
"""The longest that one look at a background task waits for it."""

PLAN_STEPS_MAX = 50
"""Steps of a plan: more is no plan that anybody follows."""

PLAN_STEP_CHARS_MAX = 300
"""Characters of one step: a line or two."""

STATUS_CHARS_MAX = 200
"""Characters of a status: it is shown in one line, and read by everyone who lists sessions."""

URL_CHARS_MAX = 4000
"""Characters of an address: more than servers take."""

REDIRECTS_MAX = 5
"""Redirects that one fetch follows: as browsers do in earnest, not in a loop."""

FETCH_BYTES_MAX = 2 * 1024 * 1024
"""Bytes of a page that are read: the most hostile page of this length takes some 2 s to become text."""

FETCH_CHARS_MAX = 40_000
"""Characters of a page that one call gives: some 10,000 tokens; the model reads on with `offset`."""

FETCH_TIME_S = 25.0
"""Seconds for one fetch, redirects included."""

FETCH_TIME_LIMIT_S = 40.0
"""The engine's limit for one fetch, the page's way to text included."""

MCP_START_S = 5.0
"""Seconds that the start of the server waits for its MCP servers: most are up in one or two."""

MCP_CONNECT_S = 30.0
"""Seconds that a connection to an MCP server may take: programs that fetch themselves first are slow."""

MCP_RETRY_S = 5.0
"""Seconds before a server that is down is tried again; doubles up to the next."""

MCP_RETRY_MAX_S = 300.0
"""The longest wait before an MCP server is tried again."""

MCP_TIME_LIMIT_S = 120.0
"""Seconds that a call of an MCP server's tool may take."""

MCP_RECONNECT_S = 0.5
"""Seconds before a connection that broke is made again, once: most servers that went are restarted."""

MCP_CHECK_S = 60.0
"""Seconds between two looks at a server that all sessions share: one that is down is known within so long."""

MCP_ANSWER_S = 5.0
"""Seconds that such a look may take. A program that is still busy with a call that was given up is ended then."""

MCP_IDLE_S = 300.0
"""Seconds after its last call that a session's process of a server is kept: a person's pause between two messages."""

MCP_PROCESSES_MAX = 48
"""Processes of MCP servers for sessions, in all; the one that was not used for the longest makes room. Fewer than a
sandbox allows, which leaves some for finding out what tools there are."""

MCP_END_S = 1.0
"""Seconds that a program is given to end by itself when its input is closed."""

MCP_MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of one message of an MCP server: a page of text or a picture, not a flood."""

MCP_JUNK_LINES_MAX = 1000
"""Lines of a program that are no messages, which are passed over: a careless program prints some when it starts."""

MCP_ERRORS_BYTES_KEPT = 4096
"""Bytes kept of what a program writes to stderr: its last words tell why it ended."""

MCP_TOOLS_MAX = 128
"""Tools that one MCP server may offer: as many as the large providers take in all."""

MCP_TOOLS_IN_ALL_MAX = 128
"""Tools of the server and of all MCP servers together: providers refuse a request with more."""

MCP_NAME_CHARS_MAX = 64
"""Characters of a tool's name: what all large providers take."""

MCP_SCHEMA_BYTES_MAX = 32 * 1024
"""Bytes of a tool's schema, as JSON: every model request carries them all."""

MCP_SCHEMA_DEPTH_MAX = 40
"""Levels of a tool's schema: providers take far fewer, and what walks through it here does so by recursion."""

MCP_DESCRIPTION_CHARS_MAX = 4000
"""Characters of a tool's description: every model request carries them all."""
