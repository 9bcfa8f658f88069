/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies of the frames that a rule matches, by the classifier that rules in force have. The program has that one
 * rule, and no action.
 */
#ifndef NETCTL_LIB_CAPTURE_H
#define NETCTL_LIB_CAPTURE_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before capture.h"
#endif

#include <netctl/abi/capture.h>
#include <netctl/abi/rule.h>
#include <netctl/lib/classify.h>
#include <netctl/lib/parse.h>
#include <netctl/lib/sets.h>

/* Bits NC_FIELD_…: what the rule looks at. */
const volatile __u32 wanted;
/* Most bytes of a frame that are kept; at least 1. */
const volatile __u32 snaplen = NC_CAPTURE_MOST;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} captured SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_capture_counts);
} capture_counts SEC(".maps");

/* Whether the rule matches the packet of `ctx`; counts that it was looked at. */
static __always_inline bool nc_capture_wants(nc_ctx *ctx, struct nc_packet *packet,
					     struct nc_capture_counts *counts)
{
	__u64 set_bits = 0;

	nc_clear(packet);
	counts->looked_at++;
	if (nc_parse(ctx, nc_ctx_length(ctx), wanted, packet) != NC_PARSED) {
		counts->unparsed++;
		return false;
	}
	if (wanted & NC_WANT_CT)
		nc_track_leaving(ctx, packet);
	if (n_set_uses)
		set_bits = nc_set_bits(packet) ^ nc_zero;
	/* The only rule's position is 0. */
	return nc_classify(packet, set_bits) == 0;
}

/* A record with the first bytes of the frame, at most `room` of them: a constant, and a power of two. Whoever gets
 * it submits it. */
static __always_inline struct nc_captured *nc_capture_room(nc_ctx *ctx, __u32 room, __u32 bytes)
{
	struct nc_captured *record = bpf_ringbuf_reserve(&captured, sizeof(*record) + room, 0);

	if (!record)
		return NULL;
	/* The same number for 1 to `room`, in a form from which 6.1's verifier learns both bounds. */
	nc_opaque(bytes);
	bytes = ((bytes - 1) & (room - 1)) + 1;
	if (nc_ctx_load(ctx, 0, record + 1, bytes)) {
		bpf_ringbuf_discard(record, 0);
		return NULL;
	}
	record->bytes = bytes;
	return record;
}

/* A record of a frame of `length` bytes with the first `bytes` of them, to be submitted; NULL if it is lost. What the ring's places are reserved with is constant:
 * few sizes, so that small frames do not take the place of large ones. */
static __always_inline struct nc_captured *nc_capture(nc_ctx *ctx, __u32 bytes, __u32 length)
{
	struct nc_captured *record;

	if (bytes <= 128)
		record = nc_capture_room(ctx, 128, bytes);
	else if (bytes <= 2048)
		record = nc_capture_room(ctx, 2048, bytes);
	else if (bytes <= 1 << 16)
		record = nc_capture_room(ctx, 1 << 16, bytes);
	else
		record = nc_capture_room(ctx, NC_CAPTURE_MOST, bytes);
	if (!record)
		return NULL;
	record->time_ns = bpf_ktime_get_boot_ns();
	record->len = length;
	record->vlan_tci = 0;
	record->vlan_proto = 0;
	record->answer = NC_CAPTURE_NO_ANSWER;
	return record;
}

#endif
