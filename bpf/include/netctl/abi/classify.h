/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the compiler of rules (userspace/classifier/engine.cpp) and the kernel's classifier
 * (lib/classify.h) agree on. Private to one build of netctl: tables are made anew with each
 * program, so nothing here is part of the pinned ABI.
 */
#ifndef NETCTL_ABI_CLASSIFY_H
#define NETCTL_ABI_CLASSIFY_H

#include "packet.h"
#include "rule.h"
#include "types.h"

/*
 * One pair of field and set that some rule asks about: element i of the program's constant
 * `set_use`, bit i of set_bits, and index i of the outer map for the set's type and the packet's
 * family (set_host4, set_host6, set_cidr4, set_cidr6, set_port).
 */
struct nc_set_use {
	__u8 field;   /* enum nc_field: src, dst, sport or dport */
	__u8 type;    /* enum nc_set_type */
	__u16 number; /* nc_set_info::number */
};

/*
 * ---- table `linear`: the rules as a straight-line program ----
 *
 * A rule is its matches one after the other; a match is one or more tests, and holds if any of them
 * does (the items of a list), or with NC_LINEAR_NOT if none of them does. A match that holds leads on
 * to `then`, the first test of the rule's following match, or with NC_LINEAR_RULE, being the last one,
 * to the answer `position`; one that does not hold leads to `next`, the first test of the next rule.
 */
enum nc_linear_test {
	NC_LINEAR_NEVER = 0,
	NC_LINEAR_ALWAYS = 1,
	NC_LINEAR_RANGE = 2,  /* low <= field <= high */
	NC_LINEAR_MASKED = 3, /* (field & high) == low */
	NC_LINEAR_PREFIX = 4, /* (address & mask) == value, of the family in `bits` */
	NC_LINEAR_SET = 5,    /* bit `set` of set_bits */
	NC_LINEAR_ABSENT = 6, /* the packet has none of `bits` */
};

enum nc_linear_flags {
	NC_LINEAR_LAST = 1 << 0, /* last test of its match */
	NC_LINEAR_NOT = 1 << 1,	 /* of a negated match; on each of its tests */
	NC_LINEAR_RULE = 1 << 2, /* of the last match of a rule; on each of its tests */
};

struct nc_linear {
	__u32 then;
	__u32 next;
	__u32 position; /* of the rule in its list */
	__u32 present; /* nc_has: the match does not hold if the packet has none; 0 = no such need */
	__u32 bits;    /* nc_has, for PREFIX (which family) and ABSENT */
	__u8 test;     /* enum nc_linear_test */
	__u8 field;    /* enum nc_field */
	__u8 flags;    /* enum nc_linear_flags */
	__u8 set;      /* NC_LINEAR_SET: bit number */
	union {
		struct {
			__u64 low, high; /* host order; MAC addresses as 48-bit numbers */
		} number;
		struct {
			__be32 value[4], mask[4];
		} prefix;
	};
	__u64 reserved; /* to a cache line */
};
NC_STATIC_ASSERT(sizeof(struct nc_linear) == 64, "nc_linear has no hidden padding");

/* Tests in the table at most: 64 MiB. */
#define NC_LINEAR_MAX (1u << 20)

#endif
