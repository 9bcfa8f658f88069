/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all instruments share: the selection, counters and the ring. Include vmlinux.h and bpf_helpers.h before.
 */
#ifndef NETCTL_LIB_TRACE_RING_H
#define NETCTL_LIB_TRACE_RING_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#include <netctl/abi/trace.h>

#define PF_KTHREAD 0x00200000

const volatile struct nc_trace_selection selection;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_trace_counters);
} counters SEC(".maps");

/* Written with BPF_RB_NO_WAKEUP: waking the reader costs more than all the rest, so it looks by itself
 * each few milliseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} events SEC(".maps");

static __always_inline struct nc_trace_counters *nc_trace_count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

#endif
