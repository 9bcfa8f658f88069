/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Events of rules that say `log`: sampled by rate, since a flood that fills the log hides what one
 * is looking for. What is left out is counted.
 */
#ifndef NETCTL_LIB_LOG_H
#define NETCTL_LIB_LOG_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before log.h"
#endif

#include <netctl/abi/rule.h>
#include <netctl/lib/changes.h>
#include <netctl/lib/limit.h>

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

NC_BTF(nc_event);

/* Nanoseconds that one event costs, and how far ahead a burst of them may be; 0: no bound. */
const volatile __u64 log_interval, log_burst;
const volatile __u64 generation;

static __u64 log_arrival;

static __always_inline void nc_log(nc_ctx *ctx, struct nc_stats *stats, __u32 rule_id, __u32 length,
				   __u32 verdict, __u32 reason)
{
	const struct nc_changes *block;
	struct nc_event *event;
	__u32 captured = length;

	if (log_interval &&
	    nc_take(&log_arrival, bpf_ktime_get_ns(), log_interval, log_burst) != NC_LIMIT_WITHIN) {
		stats->log_suppressed++;
		return;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		stats->log_lost++;
		return;
	}
	event->time_ns = bpf_ktime_get_boot_ns();
	block = nc_changes_in_force();
	event->generation = block ? block->generation : generation;
	event->rule_id = rule_id;
	event->ifindex = nc_ctx_ifindex(ctx);
	event->len = length;
	event->verdict = verdict;
	event->reason = reason;
	if (captured > NC_EVENT_HEADERS)
		captured = NC_EVENT_HEADERS;
	/* The same number for 1 to 128, in a form from which 6.1's verifier learns both bounds. */
	nc_opaque(captured);
	captured = ((captured - 1) & (NC_EVENT_HEADERS - 1)) + 1;
	if (nc_ctx_load(ctx, 0, event->headers, captured))
		captured = 0;
	event->captured = captured;
	bpf_ringbuf_submit(event, 0);
	stats->log_written++;
}

#endif
