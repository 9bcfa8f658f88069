/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `over add @SET ttl T`: the address, or the prefix, whose account is over the limit of a rule is written into a
 * set. The set is one that the program asks about that side of each packet (nc_action::over_set), so who is a
 * member already is known and costs nothing here.
 *
 * An element that ran out is let live again by one compare-and-exchange of its time; whoever replaced it just
 * then has the last word, and the next packet tries again.
 */
#ifndef NETCTL_LIB_OVER_H
#define NETCTL_LIB_OVER_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>
#include <netctl/lib/bits.h>
#include <netctl/lib/sets.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_over_adds);
} over_adds SEC(".maps");

enum nc_over_result {
	NC_OVER_ADDED,
	NC_OVER_THERE,
	NC_OVER_EXCEPTION,
	NC_OVER_FULL,
	NC_OVER_CHANGING,
};

#define NC_EEXIST 17

/* Writes an element that counts until `expires`; `value` is the one that is there, or NULL. */
static __always_inline enum nc_over_result nc_over_write(void *map, const void *key,
							 struct nc_set_value *value, __u32 expires)
{
	struct nc_set_value fresh = { .expires = expires }, now;
	long status;

	if (!value) {
		status = bpf_map_update_elem(map, key, &fresh, BPF_NOEXIST);
		return !status		    ? NC_OVER_ADDED :
		       status == -NC_EEXIST ? NC_OVER_THERE :
					      NC_OVER_FULL;
	}
	now.expires = *(volatile __u32 *)&value->expires;
	now.flags = *(volatile __u32 *)&value->flags;
	if (now.flags & NC_SET_TURNS)
		return NC_OVER_CHANGING;
	if (!nc_expired(&now))
		return now.flags & NC_SET_ABSENT ? NC_OVER_EXCEPTION : NC_OVER_THERE;
	if (now.flags & NC_SET_ABSENT)
		return bpf_map_update_elem(map, key, &fresh, BPF_EXIST) ? NC_OVER_CHANGING :
									  NC_OVER_ADDED;
	return __sync_val_compare_and_swap(&value->expires, now.expires, expires) == now.expires ?
		       NC_OVER_ADDED :
		       NC_OVER_CHANGING;
}

/* How many bits of an address the mask has. */
static __always_inline __u32 nc_mask_length(const __be32 *mask, __u32 words)
{
	__u32 length = 0, i;

#pragma clang loop unroll(full)
	for (i = 0; i < words; i++)
		length += nc_count_bits(mask[i]);
	return length;
}

/* Whether the longest element of the live trie that covers the address, and counts, is an exception. As in
 * nc_cidr_holds(), length by length if those that ran out hide others. */
__noinline int nc_over_excepted(const struct nc_packet *p, __u32 use, __u32 field, __u32 number)
{
	struct nc_set_cidr6 key = {};
	const struct nc_set_value *value;
	const __be32 *address;
	void *trie;
	int length;

	if (!p)
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
	for (; length >= 0 && value; length--) {
		const struct nc_set_value *wider = NULL;

		if (length) {
			key.length = length - 1;
			wider = bpf_map_lookup_elem(trie, &key);
		}
		if (wider != value) {
			struct nc_set_value now = nc_in_force(value, number);

			if (!(now.flags & NC_SET_NONE) && !nc_expired(&now))
				return !!(now.flags & NC_SET_ABSENT);
		}
		value = wider;
	}
	return 0;
}

/* The same for both families: a trie, and a key of it. */
static __always_inline enum nc_over_result
nc_over_write_prefix(void *trie, struct nc_set_cidr6 *key, __u32 expires)
{
	struct nc_set_value *value = bpf_map_lookup_elem(trie, key);

	/* What a trie finds may be shorter: there is such an element if one bit less finds another one. */
	if (value && key->length) {
		key->length--;
		if (bpf_map_lookup_elem(trie, key) == value)
			value = NULL;
		key->length++;
	}
	return nc_over_write(trie, key, value, expires);
}

/* Adds whose account is over the limit of `action`; it must be no member, nor be excepted. Returns enum
 * nc_over_result. */
__noinline int nc_over_add(const struct nc_packet *p, const struct nc_action *action)
{
	__u32 use, expires = 0;
	struct nc_set_cidr6 key = {};
	const __be32 *address;
	void *map;

	if (!p || !action)
		return NC_OVER_THERE;
	use = action->over_set;
	if (use >= NC_MAX_SET_USES)
		return NC_OVER_THERE;
	if (action->over_ttl)
		expires = bpf_ktime_get_boot_ns() / 1000000000 + action->over_ttl;
	address = set_use[use].field == NC_FIELD_SRC ? p->src : p->dst;
	if (p->has & NC_HAS_IPV4) {
		key.length = nc_mask_length(&action->limit_mask4, 1);
		key.address[0] = address[0] & action->limit_mask4;
		if (set_use[use].type == NC_SET_CIDR) {
			map = bpf_map_lookup_elem(&set_cidr4, &use);
			return map ? nc_over_write_prefix(map, &key, expires) : NC_OVER_FULL;
		}
		map = bpf_map_lookup_elem(&set_host4, &use);
	} else {
		__u32 i;

		key.length = nc_mask_length(action->limit_mask6, 4);
#pragma clang loop unroll(full)
		for (i = 0; i < 4; i++)
			key.address[i] = address[i] & action->limit_mask6[i];
		if (set_use[use].type == NC_SET_CIDR) {
			map = bpf_map_lookup_elem(&set_cidr6, &use);
			return map ? nc_over_write_prefix(map, &key, expires) : NC_OVER_FULL;
		}
		map = bpf_map_lookup_elem(&set_host6, &use);
	}
	if (!map)
		return NC_OVER_FULL;
	return nc_over_write(map, key.address, bpf_map_lookup_elem(map, key.address), expires);
}

/* What becomes of a packet's address that is over the limit of a rule, counted. */
static __always_inline void nc_over(const struct nc_packet *p, __u64 set_bits,
				    const struct nc_action *action)
{
	__u32 zero = 0;
	struct nc_over_adds *counted = bpf_map_lookup_elem(&over_adds, &zero);
	__u32 use = action->over_set & (NC_MAX_SET_USES - 1);
	int result;

	/* One function after the other, and not one within the other: the stack is nearly full. */
	if (set_bits >> use & 1 || !(p->has & (NC_HAS_IPV4 | NC_HAS_IPV6)))
		result = NC_OVER_THERE;
	else if (set_use[use].type == NC_SET_CIDR &&
		 nc_over_excepted(p, use, set_use[use].field, set_use[use].number))
		result = NC_OVER_EXCEPTION;
	else
		result = nc_over_add(p, action);
	if (!counted)
		return;
	counted->added += result == NC_OVER_ADDED;
	counted->there += result == NC_OVER_THERE;
	counted->exception += result == NC_OVER_EXCEPTION;
	counted->full += result == NC_OVER_FULL;
	counted->changing += result == NC_OVER_CHANGING;
}

#endif
