# SPDX-License-Identifier: GPL-2.0-only
"""Members of netctl's JSON that traffic and time change without a command."""

COUNTS = frozenset({
    "packets", "bytes", "verdicts", "default_packets", "default_bytes", "over_limit", "over_packets", "over_bytes",
    "over_rate", "unparsed", "judged", "allowed", "denied", "would_deny", "by_default", "written", "lost", "suppressed",
    "expires_in", "rewritten", "rewritten_datagrams", "forgotten_targets", "loops", "connections",
    "datagrams", "refused", "opened", "asked", "unanswered", "asked_seconds_ago",
})  # fmt: skip
