/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * `rate` of a rule: bits a second, by one time a rule, the moment at which all that was let through will
 * have left at that rate. One word, so that a packet reserves its time with one compare-and-exchange
 * and no CPU loses another's.
 *
 * On the way out through the qdisc fq a packet gets that moment as its earliest departure time (Saeed et
 * al., "Carousel", SIGCOMM 2017), and fq keeps it until then. Anywhere else what comes too early is
 * dropped (GCRA, as in limit.h, in bytes).
 */
#ifndef NETCTL_LIB_RATE_H
#define NETCTL_LIB_RATE_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>
#include <netctl/lib/limit.h>

/* One entry a rule with a rate, made by userspace before the rules are in force. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_COUNTER_CHUNK *NC_COUNTER_CHUNKS);
	__type(key, __u32);
	__type(value, struct nc_rate_state);
} rates SEC(".maps");

/* Whether packets leave through fq. If it is taken away later, packets leave at once and what would
 * wait longer than the horizon is dropped, so the rate still holds over that time. */
const volatile __u32 by_departure;

enum nc_rate_result { NC_RATE_WITHIN, NC_RATE_OVER, NC_RATE_FAILED };

static __always_inline enum nc_rate_result nc_rate(struct __sk_buff *skb,
						   const struct nc_action *action)
{
	struct nc_rate_state *state = bpf_map_lookup_elem(&rates, &action->rule_id);
	__u64 rate = action->rate_bytes, burst = action->rate_burst;
	__u64 now = bpf_ktime_get_ns(), cost, early, bound;
	int i;

	if (!state || !rate)
		return NC_RATE_FAILED;
	if (!burst && !by_departure) {
		burst = rate / NC_POLICER_BURST_PART;
		if (burst < NC_POLICER_BURST_LEAST)
			burst = NC_POLICER_BURST_LEAST;
	}
	/* With the headers of all segments that the packet will become. */
	cost = (__u64)skb->wire_len * 1000000000 / rate;
	early = burst * 1000000000 / rate;
	bound = by_departure ? early + NC_RATE_HORIZON_NS : early;

	for (i = 0; i < NC_LIMIT_TRIES; i++) {
		__u64 expected = *(volatile __u64 *)&state->departure_ns;
		__u64 start = expected > now ? expected : now;

		if (start - now > bound)
			return NC_RATE_OVER;
		if (__sync_val_compare_and_swap(&state->departure_ns, expected, start + cost) !=
		    expected)
			continue;
		/* A socket may pace its packets more slowly than the rule. */
		if (by_departure && start - now > early && skb->tstamp < start - early)
			skb->tstamp = start - early;
		return NC_RATE_WITHIN;
	}
	return NC_RATE_FAILED;
}

#endif
