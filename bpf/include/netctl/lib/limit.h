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

/* One entry for each rule and source, made here; the least recently used ones give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct nc_limit_key);
	__type(value, struct nc_limit_state);
} limit_src SEC(".maps");

enum nc_limit_result { NC_LIMIT_WITHIN, NC_LIMIT_OVER, NC_LIMIT_FAILED };

/*
 * Takes one packet's time, `interval`, from the limit at `arrival`, unless that is then more than
 * `tolerance` ahead of `now`. Nanoseconds all.
 */
static __always_inline enum nc_limit_result nc_take(__u64 *arrival, __u64 now, __u64 interval,
						    __u64 tolerance)
{
	int i;

	for (i = 0; i < NC_LIMIT_TRIES; i++) {
		__u64 expected = *(volatile __u64 *)arrival;
		__u64 start = expected > now ? expected : now;

		if (start - now > tolerance)
			return NC_LIMIT_OVER;
		if (__sync_val_compare_and_swap(arrival, expected, start + interval) == expected)
			return NC_LIMIT_WITHIN;
	}
	return NC_LIMIT_FAILED;
}

/* The limit of the rule `action` for a packet. Those without an IP source share one state. */
static __always_inline enum nc_limit_result nc_limit(const struct nc_action *action,
						     const struct nc_packet *p)
{
	struct nc_limit_key key = { .rule_id = action->rule_id };
	struct nc_limit_state *state;

	if (action->flags & NC_ACTION_LIMIT_PER_SOURCE) {
		__builtin_memcpy(key.source, p->src, sizeof(key.source));
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
	return nc_take(&state->arrival_ns, bpf_ktime_get_ns(), action->limit_interval_ns,
		       action->limit_burst_ns);
}

#endif
