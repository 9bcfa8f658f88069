/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The journal of `netctl apply`: how the host was, for as long as it may have to become so again.
 */
#ifndef NETCTL_ABI_JOURNAL_H
#define NETCTL_ABI_JOURNAL_H

#include "types.h"

#define NC_JOURNAL_TEXT 4056

enum nc_journal_state {
	NC_JOURNAL_APPLYING = 1,   /* its writer holds the root's lock, or has died */
	NC_JOURNAL_CONFIRMING = 2, /* all is in force, and goes back at the deadline */
};

/* Pinned as <root>/journal, an array: the text goes on from each to the next, the numbers are those of the first. */
struct nc_journal {
	__u32 abi_version;
	__u32 state; /* nc_journal_state */
	__u64 id;
	__u64 deadline_ns;	    /* of CLOCK_BOOTTIME; 0: none */
	__u64 length;		    /* bytes of the text */
	__u64 changes;		    /* how many objects it is about */
	char text[NC_JOURNAL_TEXT]; /* YAML, as netctl.yaml(5) describes it: what leads back */
};
NC_STATIC_ASSERT(sizeof(struct nc_journal) == 4096, "nc_journal is ABI");

#endif
