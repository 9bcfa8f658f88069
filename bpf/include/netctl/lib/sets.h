/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Membership of a packet's addresses and ports in sets. Each pair of field and set that the rules
 * name is looked up once a packet, however many rules name it.
 */
#ifndef NETCTL_LIB_SETS_H
#define NETCTL_LIB_SETS_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/classify.h>
#include <netctl/lib/set_base.h>
#include <netctl/lib/templates.h>

/* Index = number of the set use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_MAX_SET_USES);
	__type(key, __u32);
	__array(values, struct nc_map_host4);
} set_host4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_MAX_SET_USES);
	__type(key, __u32);
	__array(values, struct nc_map_host6);
} set_host6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_MAX_SET_USES);
	__type(key, __u32);
	__array(values, struct nc_map_cidr4);
} set_cidr4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_MAX_SET_USES);
	__type(key, __u32);
	__array(values, struct nc_map_cidr6);
} set_cidr6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_MAX_SET_USES);
	__type(key, __u32);
	__array(values, struct nc_map_port);
} set_port SEC(".maps");

const volatile __u32 n_set_uses;
const volatile struct nc_set_use set_use[NC_MAX_SET_USES];

static __always_inline bool nc_expired(const struct nc_set_value *value)
{
	return value->expires && bpf_ktime_get_boot_ns() / 1000000000 >= value->expires;
}

/* An element as it is in force in set number `number`. */
static __always_inline struct nc_set_value nc_in_force(const struct nc_set_value *value,
						       __u32 number)
{
	struct nc_set_value now = *value;

	if (unlikely(now.flags & NC_SET_TURNS))
		now = nc_set_in_force(now, nc_set_word_of(number) >> NC_SET_WORD_TURN);
	return now;
}

/*
 * Whether an element that turns is a member by now. A function by itself: the verifier looks at its ways once, and
 * not behind each of those of its callers.
 */
__noinline int nc_turns_into_member(const struct nc_set_value *value, __u32 number)
{
	struct nc_set_value now;

	if (!value)
		return 0;
	now = nc_in_force(value, number);
	return !(now.flags & (NC_SET_ABSENT | NC_SET_NONE)) && !nc_expired(&now);
}

static __always_inline bool nc_is_member(const struct nc_set_value *value, __u32 number)
{
	if (!value)
		return false;
	/* Only while many elements change at once. */
	if (unlikely(value->flags & NC_SET_TURNS))
		return nc_turns_into_member(value, number);
	return !(value->flags & NC_SET_ABSENT) && !nc_expired(value);
}

static __always_inline __u64 nc_address_half(const __be32 *words)
{
	return (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]);
}

/* What the kernel knows of a trie (kernel/bpf/lpm_trie.c). */
struct lpm_trie___counted {
	unsigned long n_entries;
} __attribute__((preserve_access_index));

/* Whether a trie has elements, which a set with a base seldom has: to ask the trie itself is a call, and a
 * return from one is what takes longest in a lookup. */
static __always_inline bool nc_has_elements(const void *trie)
{
	const struct lpm_trie___counted *counted = trie;

	return !bpf_core_field_exists(counted->n_entries) || counted->n_entries;
}

/* What a lookup comes to without a call but those of the maps. */
enum nc_set_step {
	NC_SET_OUT,
	NC_SET_IN,
	NC_SET_ASK_BASE, /* nc_base_holds() knows */
	NC_SET_ASK_BOTH, /* nc_cidr_holds() knows */
};

static __always_inline enum nc_set_step nc_cidr4_step(__be32 address, __u32 use, __u32 number)
{
	void *trie = bpf_map_lookup_elem(&set_cidr4, &use);
	struct nc_set_cidr4 key = { .length = 32, .address = address };
	const struct nc_set_value *value;
	struct nc_base_ref base;

	if (!trie)
		return NC_SET_OUT;
	value = nc_has_elements(trie) ? bpf_map_lookup_elem(trie, &key) : NULL;
	if (unlikely(value))
		return nc_is_member(value, number) ? NC_SET_IN : NC_SET_ASK_BOTH;
	base = nc_base_of(number, 0);
	return base.first && nc_base_may_hold4(base, bpf_ntohl(address)) ? NC_SET_ASK_BASE :
									   NC_SET_OUT;
}

static __always_inline enum nc_set_step nc_cidr6_step(const __be32 *address, __u32 use,
						      __u32 number)
{
	void *trie = bpf_map_lookup_elem(&set_cidr6, &use);
	struct nc_set_cidr6 key = { .length = 128 };
	const struct nc_set_value *value;
	struct nc_base_ref base;

	if (!trie)
		return NC_SET_OUT;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	value = nc_has_elements(trie) ? bpf_map_lookup_elem(trie, &key) : NULL;
	if (unlikely(value))
		return nc_is_member(value, number) ? NC_SET_IN : NC_SET_ASK_BOTH;
	base = nc_base_of(number, 1);
	return base.first && nc_base_may_hold6(base, nc_address_half(address)) ? NC_SET_ASK_BASE :
										 NC_SET_OUT;
}

/* Whether the address of set use number `use` is in its base. */
__noinline int nc_base_holds(const struct nc_packet *p, __u32 use)
{
	const __be32 *address;
	struct nc_base_ref base;

	if (!p || use >= NC_MAX_SET_USES)
		return 0;
	address = set_use[use].field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4) {
		base = nc_base_of(set_use[use].number, 0);
		return base.first && nc_base_holds4(base, bpf_ntohl(address[0]));
	}
	base = nc_base_of(set_use[use].number, 1);
	return base.first &&
	       nc_base_holds6(base, nc_address_half(address), nc_address_half(address + 2));
}

/*
 * What follows is for addresses that elements of the live trie cover which are exceptions, or expired, and
 * for programs that are in no hurry. It is global, and in two functions that are called one after the
 * other, because the programs around it need most of the stack.
 */

/* The lengths of all elements of set number `number` that cover the packet's address. */
__noinline int nc_base_lengths(const struct nc_packet *p, __u32 field, __u32 number,
			       struct nc_base_found *found)
{
	struct nc_base_ref base;
	const __be32 *address;

	if (!p || !found)
		return 0;
	found->bits0 = found->bits1 = found->bits2 = 0;
	base = nc_base_of(number, p->has & NC_HAS_IPV4 ? 0 : 1);
	if (!base.first)
		return 0;
	address = field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4)
		nc_base_find4(base, bpf_ntohl(address[0]), found);
	else
		nc_base_find6(base, nc_address_half(address), nc_address_half(address + 2), found);
	return 0;
}

/*
 * Whether the address is in the cidr set in slot `use`, whose number is `number`, given what its base has. The longest element of both
 * that has not expired decides; one of the trie goes before the base's of the same length. A trie finds
 * its longest only, so if that expired, shorter ones are asked for, length by length: otherwise an element
 * that ran out would hide a wider one that has not, until somebody cleans up.
 */
__noinline int nc_cidr_holds(const struct nc_packet *p, __u32 use, __u32 field, __u32 number,
			     const struct nc_base_found *found)
{
	const struct nc_set_value *value;
	struct nc_set_value now;
	struct nc_set_cidr6 key = {};
	const __be32 *address;
	void *trie;
	int length;

	if (!p || !found || !(p->has & (NC_HAS_IPV4 | NC_HAS_IPV6)))
		return 0;
	address = field == NC_FIELD_SRC ? p->src : p->dst;
	length = p->has & NC_HAS_IPV4 ? 32 : 128;
	trie = p->has & NC_HAS_IPV4 ? bpf_map_lookup_elem(&set_cidr4, &use) :
				      bpf_map_lookup_elem(&set_cidr6, &use);
	if (!trie)
		return 0;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	key.length = length;
	value = bpf_map_lookup_elem(trie, &key);
	if (!value)
		return nc_base_has_any(found);
	now = nc_in_force(value, number);
	if (now.flags & NC_SET_ABSENT && !nc_expired(&now)) {
		/* An exception, unless the base's longest one is longer. */
		length = nc_base_longest(found);
		if (!length)
			return 0;
		key.length = length - 1;
		return bpf_map_lookup_elem(trie, &key) == value;
	}
	for (; length >= 0; length--) {
		const struct nc_set_value *wider = NULL;

		/* All that the trie has is longer than this. */
		if (!value)
			return nc_base_has_shorter(found, length + 1);
		if (length) {
			key.length = length - 1;
			wider = bpf_map_lookup_elem(trie, &key);
		}
		if (wider != value) {
			now = nc_in_force(value, number);
			if (!(now.flags & NC_SET_NONE) && !nc_expired(&now))
				return !(now.flags & NC_SET_ABSENT);
		}
		if ((wider == value || now.flags & NC_SET_NONE) &&
		    nc_base_has_length(found, length))
			return 1;
		value = wider;
	}
	return 0;
}

/* Whether a field of the packet is in the set in slot `use`, which is one of hosts or ports. A field that is
 * not there is in no set. */
static __always_inline int nc_in_hash(const struct nc_packet *p, __u32 use, __u32 field, __u32 type,
				      __u32 number)
{
	const __be32 *address;

	if (type == NC_SET_PORT) {
		struct nc_set_port key = {
			.port = bpf_htons(field == NC_FIELD_SPORT ? p->sport : p->dport),
		};
		void *ports = bpf_map_lookup_elem(&set_port, &use);

		return p->has & NC_HAS_PORTS && ports &&
		       nc_is_member(bpf_map_lookup_elem(ports, &key), number);
	}

	address = field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4) {
		struct nc_set_host4 key = { .address = address[0] };
		void *hosts = bpf_map_lookup_elem(&set_host4, &use);

		return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key), number);
	}
	if (p->has & NC_HAS_IPV6) {
		struct nc_set_host6 key;
		void *hosts = bpf_map_lookup_elem(&set_host6, &use);

		__builtin_memcpy(key.address, address, sizeof(key.address));
		return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key), number);
	}
	return 0;
}

static __always_inline enum nc_set_step nc_set_step(const struct nc_packet *p, __u32 use)
{
	const __be32 *address = set_use[use].field == NC_FIELD_SRC ? p->src : p->dst;

	if (set_use[use].type != NC_SET_CIDR)
		return nc_in_hash(p, use, set_use[use].field, set_use[use].type,
				  set_use[use].number);
	if (p->has & NC_HAS_IPV4)
		return nc_cidr4_step(address[0], use, set_use[use].number);
	if (p->has & NC_HAS_IPV6)
		return nc_cidr6_step(address, use, set_use[use].number);
	return NC_SET_OUT;
}

/* The same as a function: global, like nc_walk_extensions(), to be verified once, not once for each use. */
__noinline int nc_any_set_step(const struct nc_packet *p, __u32 use)
{
	return p && use < NC_MAX_SET_USES ? nc_set_step(p, use) : NC_SET_OUT;
}

/* Membership for set use number `use`, as its bit. */
static __always_inline __u64 nc_set_bit(const struct nc_packet *p, __u32 use, int step)
{
	struct nc_base_found lengths;

	if (step == NC_SET_ASK_BASE) {
		step = nc_base_holds(p, use);
	} else if (unlikely(step == NC_SET_ASK_BOTH)) {
		nc_base_lengths(p, set_use[use].field, set_use[use].number, &lengths);
		step = nc_cidr_holds(p, use, set_use[use].field, set_use[use].number, &lengths);
	}
	return (__u64)(step & NC_SET_IN) << use;
}

/* So many have code of their own, with all that is known of the set, since calls are dear. */
#define NC_SETS_INLINE 2

/* Bit i = membership for set use i. */
static __always_inline __u64 nc_set_bits(const struct nc_packet *p)
{
	__u64 bits = 0;
	__u32 i;

#pragma clang loop unroll(full)
	for (i = 0; i < NC_SETS_INLINE; i++)
		if (i < n_set_uses)
			bits |= nc_set_bit(p, i, nc_set_step(p, i));
	for (i = NC_SETS_INLINE; i < NC_MAX_SET_USES; i++) {
		if (i >= n_set_uses)
			break;
		bits |= nc_set_bit(p, i, nc_any_set_step(p, i));
	}
	return bits;
}

#endif
