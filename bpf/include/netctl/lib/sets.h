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

/* By nc_set_use::base. */
struct nc_map_bases set_bases4 SEC(".maps");
struct nc_map_bases set_bases6 SEC(".maps");

const volatile __u32 n_set_uses;
const volatile struct nc_set_use set_use[NC_MAX_SET_USES];

static __always_inline bool nc_expired(const struct nc_set_value *value)
{
	return value->expires && bpf_ktime_get_boot_ns() / 1000000000 >= value->expires;
}

static __always_inline bool nc_is_member(const struct nc_set_value *value)
{
	return value && !(value->flags & NC_SET_ABSENT) && !nc_expired(value);
}

static __always_inline __u64 nc_address_half(const __be32 *words)
{
	return (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]);
}

/* In the place of an answer: nc_cidr_holds() gives it. */
#define NC_SET_UNDECIDED 2

static __always_inline int nc_cidr4_holds(__be32 address, __u32 use, __u32 at)
{
	void *trie = bpf_map_lookup_elem(&set_cidr4, &use), *base;
	struct nc_set_cidr4 key = { .length = 32, .address = address };
	const struct nc_set_value *value;

	if (!trie)
		return 0;
	value = bpf_map_lookup_elem(trie, &key);
	if (likely(!value)) {
		base = at ? bpf_map_lookup_elem(&set_bases4, &at) : NULL;
		return base && nc_base_holds4(base, bpf_ntohl(address));
	}
	return nc_is_member(value) ? 1 : NC_SET_UNDECIDED;
}

static __always_inline int nc_cidr6_holds(const __be32 *address, __u32 use, __u32 at)
{
	void *trie = bpf_map_lookup_elem(&set_cidr6, &use), *base;
	struct nc_set_cidr6 key = { .length = 128 };
	const struct nc_set_value *value;

	if (!trie)
		return 0;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	value = bpf_map_lookup_elem(trie, &key);
	if (likely(!value)) {
		base = at ? bpf_map_lookup_elem(&set_bases6, &at) : NULL;
		return base &&
		       nc_base_holds6(base, nc_address_half(address), nc_address_half(address + 2));
	}
	return nc_is_member(value) ? 1 : NC_SET_UNDECIDED;
}

/*
 * What follows is for addresses that elements of the live trie cover which are exceptions, or expired, and
 * for programs that are in no hurry. It is global, and in two functions that are called one after the
 * other, because the programs around it need most of the stack.
 */

/* The lengths of all elements of base number `at` that cover the packet's address. */
__noinline int nc_base_lengths(const struct nc_packet *p, __u32 field, __u32 at,
			       struct nc_base_found *found)
{
	const __be32 *address;
	void *base;

	if (!p || !found)
		return 0;
	found->bits0 = found->bits1 = found->bits2 = 0;
	if (!at)
		return 0;
	address = field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4) {
		base = bpf_map_lookup_elem(&set_bases4, &at);
		if (base)
			nc_base_find4(base, bpf_ntohl(address[0]), found);
	} else {
		base = bpf_map_lookup_elem(&set_bases6, &at);
		if (base)
			nc_base_find6(base, nc_address_half(address), nc_address_half(address + 2),
				      found);
	}
	return 0;
}

/*
 * Whether the address is in the cidr set in slot `use`, given what its base has. The longest element of both
 * that has not expired decides; one of the trie goes before the base's of the same length. A trie finds
 * its longest only, so if that expired, shorter ones are asked for, length by length: otherwise an element
 * that ran out would hide a wider one that has not, until somebody cleans up.
 */
__noinline int nc_cidr_holds(const struct nc_packet *p, __u32 use, __u32 field,
			     const struct nc_base_found *found)
{
	const struct nc_set_value *value;
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
	if (value->flags & NC_SET_ABSENT && !nc_expired(value)) {
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
			if (!nc_expired(value))
				return !(value->flags & NC_SET_ABSENT);
		} else if (nc_base_has_length(found, length)) {
			return 1;
		}
		value = wider;
	}
	return 0;
}

/* Whether a field of the packet is in the set in slot `use`, which is one of hosts or ports. A field that is
 * not there is in no set. */
static __always_inline int nc_in_hash(const struct nc_packet *p, __u32 use, __u32 field, __u32 type)
{
	const __be32 *address;

	if (type == NC_SET_PORT) {
		struct nc_set_port key = {
			.port = bpf_htons(field == NC_FIELD_SPORT ? p->sport : p->dport),
		};
		void *ports = bpf_map_lookup_elem(&set_port, &use);

		return p->has & NC_HAS_PORTS && ports &&
		       nc_is_member(bpf_map_lookup_elem(ports, &key));
	}

	address = field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4) {
		struct nc_set_host4 key = { .address = address[0] };
		void *hosts = bpf_map_lookup_elem(&set_host4, &use);

		return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key));
	}
	if (p->has & NC_HAS_IPV6) {
		struct nc_set_host6 key;
		void *hosts = bpf_map_lookup_elem(&set_host6, &use);

		__builtin_memcpy(key.address, address, sizeof(key.address));
		return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key));
	}
	return 0;
}

/* Whether the field of set use number `use` is in its set, or undecided.
 * Global, like nc_walk_extensions(): verified once, not once for each use. */
__noinline int nc_set_holds(const struct nc_packet *p, __u32 use)
{
	const __be32 *address;

	if (!p || use >= NC_MAX_SET_USES)
		return 0;
	if (set_use[use].type != NC_SET_CIDR)
		return nc_in_hash(p, use, set_use[use].field, set_use[use].type);
	address = set_use[use].field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4)
		return nc_cidr4_holds(address[0], use, set_use[use].base);
	if (p->has & NC_HAS_IPV6)
		return nc_cidr6_holds(address, use, set_use[use].base);
	return 0;
}

/* Bit i = membership for set use i. */
static __always_inline __u64 nc_set_bits(const struct nc_packet *p)
{
	__u64 bits = 0;
	__u32 i;

	for (i = 0; i < NC_MAX_SET_USES; i++) {
		int found;

		if (i >= n_set_uses)
			break;
		found = nc_set_holds(p, i);
		if (unlikely(found == NC_SET_UNDECIDED)) {
			struct nc_base_found lengths;

			nc_base_lengths(p, set_use[i].field, set_use[i].base, &lengths);
			found = nc_cidr_holds(p, i, set_use[i].field, &lengths);
		}
		bits |= (__u64)(found & 1) << i;
	}
	return bits;
}

#endif
