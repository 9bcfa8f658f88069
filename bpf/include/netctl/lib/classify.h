/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The position of the first rule that a packet matches. Tables and constants come from
 * netctl::classifier::compile(): each table is an array in a section `.bss.NAME`, which gets its size
 * before the program is loaded; sizes and shapes are constants, so that the verifier removes what a
 * rule set does not need.
 */
#ifndef NETCTL_LIB_CLASSIFY_H
#define NETCTL_LIB_CLASSIFY_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/classify.h>
#include <netctl/lib/crossing.h>

/* nc_classify() returns a position, NC_NO_RULE, or this: a table that leads nowhere. */
#define NC_CLASSIFY_ERROR 0xfffffffeu

/*
 * Zeroes that the verifier does not know to be zeroes. Otherwise it would look at the classifier
 * anew for each combination of fields that a way through the parser leaves empty.
 */
static __always_inline void nc_clear(struct nc_packet *packet)
{
	typedef __u64 __attribute__((may_alias)) word;
	__u64 nothing = nc_zero;
	int i;

#pragma clang loop unroll(full)
	for (i = 0; i < (int)(sizeof(*packet) / sizeof(word)); i++)
		((word *)packet)[i] = nothing;
}

/* ---- linear: any rule set, at a cost that grows with it ---- */

/* Declared with one element; nc_opaque() keeps the compiler from relying on that. */
struct nc_linear linear[1] SEC(".bss.linear");
const volatile __u32 n_linear;

struct nc_linear_walk {
	const struct nc_packet *packet;
	__u64 set_bits;
	__u32 at; /* index of the next test */
	__u32 result;
};

/* The number in a field that is one. */
#define NC_NUMBER_ADDRESS(name) 0
#define NC_NUMBER_U8(name) p->name
#define NC_NUMBER_U16(name) p->name
#define NC_NUMBER_U32(name) p->name
#define NC_NUMBER_MASK32(name) p->name
#define NC_NUMBER_MAC(name) nc_mac(p->name)
#define NC_KEY_NUMBER(NAME, name, text, kind, ...)                                                 \
	case NC_FIELD_##NAME:                                                                      \
		return NC_NUMBER_##kind(name);
static __always_inline __u64 nc_number(const struct nc_packet *p, __u32 field)
{
	switch (field) {
		NC_PACKET_KEYS(NC_KEY_NUMBER)
	default:
		return 0;
	}
}

static __always_inline bool nc_linear_holds(const struct nc_linear *test, const struct nc_packet *p,
					    __u64 set_bits)
{
	__u64 number;

	switch (test->test) {
	case NC_LINEAR_PREFIX: {
		const __be32 *a = test->field == NC_FIELD_SRC ? p->src : p->dst;

		return p->has & test->bits &&
		       !(((a[0] & test->prefix.mask[0]) ^ test->prefix.value[0]) |
			 ((a[1] & test->prefix.mask[1]) ^ test->prefix.value[1]) |
			 ((a[2] & test->prefix.mask[2]) ^ test->prefix.value[2]) |
			 ((a[3] & test->prefix.mask[3]) ^ test->prefix.value[3]));
	}
	case NC_LINEAR_RANGE:
		number = nc_number(p, test->field);
		return number >= test->number.low && number <= test->number.high;
	case NC_LINEAR_MASKED:
		return (nc_number(p, test->field) & test->number.high) == test->number.low;
	case NC_LINEAR_SET:
		return set_bits >> (test->set & 63) & 1;
	case NC_LINEAR_ABSENT:
		return !(p->has & test->bits);
	case NC_LINEAR_ALWAYS:
		return true;
	default:
		return false;
	}
}

/* One test; returns 1 when the walk is over. */
static long nc_linear_step(__u32 turn, struct nc_linear_walk *walk)
{
	const struct nc_packet *p = walk->packet;
	const struct nc_linear *test = linear;
	__u64 at = walk->at;
	bool holds, negated;

	nc_opaque(at);
	nc_opaque(test);
	if (at >= n_linear) {
		walk->result = at == n_linear ? NC_NO_RULE : NC_CLASSIFY_ERROR;
		return 1;
	}
	test += at;
	if (test->present && !(p->has & test->present)) {
		walk->at = test->next;
		return 0;
	}
	holds = nc_linear_holds(test, p, walk->set_bits);
	if (!holds && !(test->flags & NC_LINEAR_LAST)) {
		walk->at = at + 1;
		return 0;
	}
	negated = test->flags & NC_LINEAR_NOT;
	if (holds == negated) {
		walk->at = test->next;
		return 0;
	}
	if (test->flags & NC_LINEAR_RULE) {
		walk->result = test->position;
		return 1;
	}
	walk->at = test->then;
	return 0;
}

static __always_inline __u32 nc_linear_match(const struct nc_packet *packet, __u64 set_bits)
{
	struct nc_linear_walk walk = {
		.packet = packet,
		.set_bits = set_bits,
		.at = nc_zero,
		.result = NC_CLASSIFY_ERROR,
	};

	/* Each turn goes forward, hence one more than there are tests sees the end. */
	bpf_loop(n_linear + 1, nc_linear_step, &walk, 0);
	return walk.result;
}

/* ---- either ---- */

/* The first rule that matches: its position, NC_NO_RULE, or NC_CLASSIFY_ERROR. */
static __always_inline __u32 nc_classify(const struct nc_packet *packet, __u64 set_bits)
{
	__u64 position;

	if (n_linear)
		return nc_linear_match(packet, set_bits);
	position = nc_cross_classify(packet, set_bits);
	return likely(position < NC_FAULT) ? position : NC_CLASSIFY_ERROR;
}

#endif
