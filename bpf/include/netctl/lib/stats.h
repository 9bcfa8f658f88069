/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters of a point and of its rules. They outlive a commit: the next program is loaded with the
 * same maps.
 */
#ifndef NETCTL_LIB_STATS_H
#define NETCTL_LIB_STATS_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>
#include <netctl/lib/templates.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_stats);
} stats SEC(".maps");

/* Chunks, so that a point with a few rules does not pay for 131,072 of them on each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NC_COUNTER_CHUNKS);
	__type(key, __u32);
	__array(values, struct nc_map_counters);
} counters SEC(".maps");

static __always_inline struct nc_stats *nc_stats_of_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&stats, &zero);
}

/* Counts a packet for the rule with counter `slot`. False if there is no such counter. */
static __always_inline bool nc_count_rule(__u32 slot, __u64 bytes, bool over_limit)
{
	__u32 chunk = slot / NC_COUNTER_CHUNK, index = slot % NC_COUNTER_CHUNK;
	struct nc_counter *counter;
	void *chunk_map;

	chunk_map = bpf_map_lookup_elem(&counters, &chunk);
	if (!chunk_map)
		return false;
	counter = bpf_map_lookup_elem(chunk_map, &index);
	if (!counter)
		return false;
	if (over_limit) {
		counter->over_packets++;
		counter->over_bytes += bytes;
	} else {
		counter->packets++;
		counter->bytes += bytes;
	}
	return true;
}

#endif
