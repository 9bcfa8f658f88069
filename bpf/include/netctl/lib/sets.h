/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Membership of a packet's addresses and ports in sets. Each pair of field and set that the rules
 * name is looked up once a packet, however many rules name it.
 */
#ifndef NETCTL_LIB_SETS_H
#define NETCTL_LIB_SETS_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/classify.h>
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

static __always_inline bool nc_is_member(const struct nc_set_value *value)
{
	return value && !(value->flags & NC_SET_ABSENT) && !nc_expired(value);
}

/*
 * The longest prefix that has not expired decides. A trie finds the longest one only; is it
 * expired, then shorter ones are asked for, length by length. Otherwise an element that ran out
 * would hide a wider one that has not, until somebody cleans up.
 */
static __always_inline bool nc_in_trie(void *trie, void *key, __u32 *length, int max_length)
{
	int i;

	for (i = max_length; i >= 0; i--) {
		struct nc_set_value *value;

		*length = i;
		value = bpf_map_lookup_elem(trie, key);
		if (!value)
			return false;
		if (!nc_expired(value))
			return !(value->flags & NC_SET_ABSENT);
	}
	return false;
}

/* Whether a field of the packet is in the set in slot `use`. A field that is not there is in no set. */
static __always_inline int nc_in_set(const struct nc_packet *p, __u32 use, __u32 field, __u32 type)
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
		if (type == NC_SET_HOST) {
			struct nc_set_host4 key = { .address = address[0] };
			void *hosts = bpf_map_lookup_elem(&set_host4, &use);

			return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key));
		} else {
			struct nc_set_cidr4 key = { .address = address[0] };
			void *prefixes = bpf_map_lookup_elem(&set_cidr4, &use);

			return prefixes && nc_in_trie(prefixes, &key, &key.length, 32);
		}
	}
	if (p->has & NC_HAS_IPV6) {
		if (type == NC_SET_HOST) {
			struct nc_set_host6 key;
			void *hosts = bpf_map_lookup_elem(&set_host6, &use);

			__builtin_memcpy(key.address, address, sizeof(key.address));
			return hosts && nc_is_member(bpf_map_lookup_elem(hosts, &key));
		} else {
			struct nc_set_cidr6 key;
			void *prefixes = bpf_map_lookup_elem(&set_cidr6, &use);

			__builtin_memcpy(key.address, address, sizeof(key.address));
			return prefixes && nc_in_trie(prefixes, &key, &key.length, 128);
		}
	}
	return 0;
}

/* Whether the field of set use number `use` is in its set.
 * Global, like nc_walk_extensions(): verified once, not once for each use. */
__noinline int nc_set_holds(const struct nc_packet *p, __u32 use)
{
	if (!p || use >= NC_MAX_SET_USES)
		return 0;
	return nc_in_set(p, use, set_use[use].field, set_use[use].type);
}

/* Bit i = membership for set use i. */
static __always_inline __u64 nc_set_bits(const struct nc_packet *p)
{
	__u64 bits = 0;
	__u32 i;

	for (i = 0; i < NC_MAX_SET_USES; i++) {
		if (i >= n_set_uses)
			break;
		bits |= (__u64)(nc_set_holds(p, i) & 1) << i;
	}
	return bits;
}

#endif
