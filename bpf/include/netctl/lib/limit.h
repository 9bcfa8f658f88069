/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rates, by the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"): one time for each
 * limit, the moment at which the next packet would come if all kept to the rate. One word, hence one
 * compare-and-exchange, hence exact with any number of CPUs.
 */
#ifndef NETCTL_LIB_LIMIT_H
#define NETCTL_LIB_LIMIT_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>

/* Another CPU must win this often in a row, each time having let a packet through, for a packet to
 * be refused that was within the limit; it is counted in limit_failed. */
#define NC_LIMIT_TRIES 32

/* One entry a rule with a limit, made by userspace before the rules are in force. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_COUNTER_CHUNK *NC_COUNTER_CHUNKS);
	__type(key, struct nc_limit_key);
	__type(value, struct nc_limit_state);
} limits SEC(".maps");

/* One entry for each rule and address, made here; the least recently used ones give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct nc_limit_key);
	__type(value, struct nc_limit_state);
} limit_src SEC(".maps");

enum nc_limit_result { NC_LIMIT_WITHIN, NC_LIMIT_OVER, NC_LIMIT_FAILED };

/*
 * Takes one packet's time, `cost`, from the limit at `arrival`, unless that is then more than
 * `tolerance` ahead of `now`. Nanoseconds all.
 */
static __always_inline enum nc_limit_result nc_take(__u64 *arrival, __u64 now, __u64 cost,
						    __u64 tolerance)
{
	int i;

	for (i = 0; i < NC_LIMIT_TRIES; i++) {
		__u64 expected = *(volatile __u64 *)arrival;
		__u64 start = expected > now ? expected : now;

		if (start - now > tolerance)
			return NC_LIMIT_OVER;
		if (__sync_val_compare_and_swap(arrival, expected, start + cost) == expected)
			return NC_LIMIT_WITHIN;
	}
	return NC_LIMIT_FAILED;
}

/* Whose account a packet is on. Those without an IP address share one. */
static __always_inline void nc_limit_account(const struct nc_action *action,
					     const struct nc_packet *p, struct nc_limit_key *key)
{
	const __be32 *address = action->flags & NC_ACTION_LIMIT_DST ? p->dst : p->src;

	if (p->has & NC_HAS_IPV6) {
		key->family = 6;
		key->address[0] = address[0] & action->limit_mask6[0];
		key->address[1] = address[1] & action->limit_mask6[1];
		key->address[2] = address[2] & action->limit_mask6[2];
		key->address[3] = address[3] & action->limit_mask6[3];
	} else if (p->has & NC_HAS_IPV4) {
		key->family = 4;
		key->address[0] = address[0] & action->limit_mask4;
	}
	if (action->flags & NC_ACTION_LIMIT_DPORT && p->has & NC_HAS_PORTS)
		key->dport = p->dport;
}

/* The limit of the rule `action` for a packet. */
static __always_inline enum nc_limit_result nc_limit(const struct nc_action *action,
						     const struct nc_packet *p)
{
	struct nc_limit_key key = { .rule_id = action->rule_id };
	struct nc_limit_state *state;
	__u64 cost = action->limit_interval_ns;

	if (action->flags & NC_ACTION_LIMIT_BYTES)
		cost = cost * p->len >> 16;
	if (action->flags & NC_ACTION_LIMIT_PER) {
		nc_limit_account(action, p, &key);
		state = bpf_map_lookup_elem(&limit_src, &key);
		if (!state) {
			struct nc_limit_state fresh = {};

			/* Another CPU may have been first, which is as good. */
			bpf_map_update_elem(&limit_src, &key, &fresh, BPF_NOEXIST);
			state = bpf_map_lookup_elem(&limit_src, &key);
		}
	} else {
		state = bpf_map_lookup_elem(&limits, &key);
	}
	if (!state)
		return NC_LIMIT_FAILED;
	return nc_take(&state->arrival_ns, bpf_ktime_get_ns(), cost, action->limit_burst_ns);
}

#endif
