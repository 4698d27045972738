"""What a served hub takes at most, so that nobody can stop it for the others; docs/hub.md lists the same numbers."""

from __future__ import annotations

KIB, MIB = 1024, 1024 * 1024

# Connections -------------------------------------------------------------------------------------------------------------
CONNECTIONS = 64
# Seconds between two requests of one connection; for the head of a request; for an answer's first bytes to be taken.
IDLE_SECONDS, HEAD_SECONDS, SEND_SECONDS = 60.0, 20.0, 60.0
# Bytes a second that a body or an answer moves at least, on average, once the first half minute is over.
SLOWEST = 4096.0
GRACE_SECONDS = 30.0

# Bodies ------------------------------------------------------------------------------------------------------------------
ANONYMOUS_BODY = 256 * KIB
MEMBER_BODY = 4 * MIB
# 128 MiB of files, which is what a push sends at most, in base64, and the lines around them.
COMMIT_BODY = 176 * MIB
# All bodies that are being read or answered at one time.
BODIES_AT_ONCE = 256 * MIB
# What is still read of a body that was refused, so that its sender sees why.
DISCARDED = 1 * MIB
QUERY_FIELDS = 100
PATHS = 5000

# Commits -----------------------------------------------------------------------------------------------------------------
FILE = 64 * MIB
FILES = 20_000
TITLE_CHARACTERS = 300
DESCRIPTION = 256 * KIB
# A contributor's commits stop before the disk is full.
FREE_DISK = 256 * MIB

# Requests ----------------------------------------------------------------------------------------------------------------
COMMENT = 16 * KIB
# Per author and request; who may write is bound by the size of the page alone.
COMMENTS = 50
EVENTS = 500
# A page, comments and all. Closing and merging go on beyond it, up to what is read.
PAGE = 4 * MIB
PAGE_READ = 64 * MIB
# Per contributor: open at one time, and ever.
OPEN_REQUESTS, REQUESTS = 50, 1000

# Answers -----------------------------------------------------------------------------------------------------------------
COMMITS_A_PAGE = 500
# Files up to this size are read at once, larger ones as they are sent.
SMALL_FILE = 1 * MIB
CLONES_AT_ONCE = 4
CLONE_SECONDS = 600.0
# Repositories that a process is kept for, which reads files from them.
READERS = 16
