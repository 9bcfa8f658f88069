/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changes to the rules of a point since its program was made: what was added or moved, as bit vectors
 * with one bit a rule, and what is gone. Made by userspace/classifier/changes.cpp, read by
 * lib/changes.h. The map `changes` has one slot; a commit fills a block aside and puts it there.
 *
 * Rules that the program was made with are "compiled", and known by their position then. A compiled
 * rule that is gone leaves packets to those behind it, which the program's tables do not tell: those
 * that have packets in common with it stand in for themselves here, and have a bit, too.
 */
#ifndef NETCTL_ABI_CHANGES_H
#define NETCTL_ABI_CHANGES_H

#include "classify.h"
#include "packet.h"
#include "rule.h"
#include "types.h"

#define NC_CHANGES 64		       /* bits */
#define NC_CHANGE_STARTS 128	       /* intervals of values of a field; a power of two */
#define NC_CHANGE_TEXTS 128	       /* records of the texts of rules that are not compiled */
#define NC_CHANGE_FIELDS NC_FIELDS_MAX /* enum nc_field; room for those that come */
#define NC_COMPILED_MAX (1u << 17)
/* Entries of `actions` behind the compiled rules': in use, and free for the next commit. */
#define NC_CHANGE_ACTIONS (2 * NC_CHANGES)

/* A field's values in ascending intervals, the last one repeated up to the end: rows[i] are the rules
 * that hold for values from starts[i] on. IPv4 addresses are numbers in host order. */
struct nc_change_numbers {
	__u64 absent; /* the rules that hold for packets without the field */
	__u64 starts[NC_CHANGE_STARTS];
	__u64 rows[NC_CHANGE_STARTS];
};

/* The same for IPv6 addresses: halves in host order. */
struct nc_change_addresses {
	__u64 high[NC_CHANGE_STARTS];
	__u64 low[NC_CHANGE_STARTS];
	__u64 rows[NC_CHANGE_STARTS];
};

struct nc_changes {
	__u64 generation;   /* of the point, instead of the one in `point` */
	__u32 next_rule_id; /* likewise */
	__u32 rules;	    /* that are in force, likewise */
	__u32 records;	    /* used ones of `texts` */
	__u32 fields;	    /* bits NC_FIELD_…: those that the bits depend on */
	__u64 all;	    /* the bits in use, in the order of the rules */
	__u64 listed;	    /* those of rules that are not compiled: `texts` has them, in order */
	/* By bit: the first compiled rule that is still there behind it, and the index in `actions`. */
	__u32 before[NC_CHANGES];
	__u32 action[NC_CHANGES];
	struct nc_change_numbers numbers[NC_CHANGE_FIELDS]; /* by enum nc_field; src, dst: IPv4 */
	struct nc_change_addresses addresses[2];	    /* src, dst: IPv6 */
	__u64 gone[NC_COMPILED_MAX / 64];		    /* one bit a compiled rule */
	struct nc_rule_text texts[NC_CHANGE_TEXTS];
};
NC_STATIC_ASSERT(sizeof(struct nc_changes) % 8 == 0, "nc_changes is ABI");

#endif
