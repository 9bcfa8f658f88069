/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rules that were added or went since the program was made: at a cost that depends on the fields
 * that they look at, not on how many they are (bit vectors, one word). Nothing here is a constant of
 * the program, and all is verified once, in functions of its own.
 */
#ifndef NETCTL_LIB_CHANGES_H
#define NETCTL_LIB_CHANGES_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/changes.h>
#include <netctl/lib/bits.h>
#include <netctl/lib/crossing.h>
#include <netctl/lib/templates.h>

/* Empty, or a block that was filled before. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct nc_map_changes);
} changes SEC(".maps");

/* The block in force, or NULL. */
static __always_inline const struct nc_changes *nc_changes_in_force(void)
{
	__u32 zero = 0;
	void *slot = bpf_map_lookup_elem(&changes, &zero);

	return unlikely(slot) ? bpf_map_lookup_elem(slot, &zero) : NULL;
}

/* The rules that hold for a number. */
__noinline __u64 nc_change_row(const struct nc_change_numbers *numbers, __u64 number)
{
	__u64 at = 0, step;

	if (!numbers)
		return 0;
#pragma clang loop unroll(full)
	for (step = NC_CHANGE_STARTS / 2; step; step /= 2) {
		__u64 next = at + step;

		nc_opaque(next);
		next &= NC_CHANGE_STARTS - 1;
		at += step & (nc_less(number, numbers->starts[next]) - 1);
	}
	nc_opaque(at);
	return numbers->rows[at & (NC_CHANGE_STARTS - 1)];
}

/* The rules that hold for an IPv6 address. */
__noinline __u64 nc_change_row6(const struct nc_change_addresses *addresses, __u64 high, __u64 low)
{
	__u64 at = 0, step;

	if (!addresses)
		return 0;
#pragma clang loop unroll(full)
	for (step = NC_CHANGE_STARTS / 2; step; step /= 2) {
		__u64 next = at + step, less, same;

		nc_opaque(next);
		next &= NC_CHANGE_STARTS - 1;
		less = nc_less(low, addresses->low[next]);
		same = nc_less(high ^ addresses->high[next], 1);
		less = nc_less(high, addresses->high[next]) | (same & less);
		at += step & (less - 1);
	}
	nc_opaque(at);
	return addresses->rows[at & (NC_CHANGE_STARTS - 1)];
}

static __always_inline __u64 nc_change_address(const struct nc_changes *c, __u32 side, __u32 has,
					       const __be32 *words)
{
	if (has & NC_HAS_IPV4)
		return nc_change_row(&c->numbers[side], bpf_ntohl(words[0]));
	if (has & NC_HAS_IPV6)
		return nc_change_row6(&c->addresses[side], nc_half(words), nc_half(words + 2));
	return c->numbers[side].absent;
}

#define NC_CHANGE_ROW_ADDRESS(NAME, name, part) nc_change_address(c, NC_FIELD_##NAME, has, p->name)
#define NC_CHANGE_ROW_NUMBER(NAME, part, value)                                                    \
	(NC_HAS_PART(part) ? nc_change_row(&c->numbers[NC_FIELD_##NAME], value) :                  \
			     c->numbers[NC_FIELD_##NAME].absent)
#define NC_CHANGE_ROW_U8(NAME, name, part) NC_CHANGE_ROW_NUMBER(NAME, part, p->name)
#define NC_CHANGE_ROW_U16(NAME, name, part) NC_CHANGE_ROW_NUMBER(NAME, part, p->name)
#define NC_CHANGE_ROW_U32(NAME, name, part) NC_CHANGE_ROW_NUMBER(NAME, part, p->name)
#define NC_CHANGE_ROW_MASK32(NAME, name, part) NC_CHANGE_ROW_NUMBER(NAME, part, p->name)
#define NC_CHANGE_ROW_MAC(NAME, name, part) NC_CHANGE_ROW_NUMBER(NAME, part, nc_mac(p->name))
#define NC_KEY_CHANGE(NAME, name, text, kind, part, ...)                                           \
	if (c->fields & 1u << NC_FIELD_##NAME)                                                     \
		bits &= NC_CHANGE_ROW_##kind(NAME, name, part);

/*
 * What the changes make of `first`, the answer of the program's tables: index into `actions` of the
 * first rule that matches, or NC_NO_RULE.
 */
__noinline __u32 nc_changed(const struct nc_changes *c, const struct nc_packet *p, __u32 first)
{
	__u32 has, bit;
	__u64 bits, word;

	if (!c || !p)
		return first;
	if (first < NC_COMPILED_MAX) {
		word = first / 64;
		nc_opaque(word);
		if (c->gone[word & (NC_COMPILED_MAX / 64 - 1)] >> (first & 63) & 1)
			first = NC_NO_RULE;
	}
	has = p->has;
	bits = c->all;
	NC_PACKET_KEYS(NC_KEY_CHANGE)
	if (!bits)
		return first;
	bit = nc_lowest_bit(bits) & (NC_CHANGES - 1);
	return c->before[bit] <= first ? c->action[bit] : first;
}

#endif
