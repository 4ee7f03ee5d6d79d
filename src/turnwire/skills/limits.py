"""Every bound of a skill, with its unit and its reason."""

ZIP_BYTES_MAX = 32 * 1024 * 1024
"""Bytes of a zip: a skill is text, scripts and a few pictures or fonts."""

FILES_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of all its files, unpacked."""

ENTRIES_MAX = 1000
"""Files and folders of a skill."""

DIRECTORY_BYTES_MAX = 1024 * 1024
"""Bytes of the zip's own directory, which is read into memory before its entries can be counted: a kilobyte for
each."""

RATIO_MAX = 200
"""How often its size in the zip a file may have unpacked: text has a tenth of that, a bomb five times as much."""

RATIO_FREE_BYTES = 1024 * 1024
"""Files below this size may be packed as well as they can: a log of blank lines is no bomb."""

PATH_BYTES_MAX = 512
COMPONENT_BYTES_MAX = 200
DEPTH_MAX = 16
"""Bytes of a path in a skill and of one component, and its components: far below what file systems take."""

SKILL_MD_BYTES_MAX = 1024 * 1024
"""Bytes of SKILL.md: it is read into memory, and meant to be read whole by a model."""

FRONT_MATTER_BYTES_MAX = 16 * 1024
"""Bytes of its front matter: the fields of the format come to less than 2 KiB."""

SKILLS_MAX = 100
"""Skills of a tenant: their descriptions stand in every request to a model."""
