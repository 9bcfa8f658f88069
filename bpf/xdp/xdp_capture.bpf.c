// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures at an XDP filter that is in force: a program looks on as the filter is entered, and takes a copy, since `reject`
 * answers in the packet's own buffer; another as it is left, with its answer. An interface has one XDP program, so
 * there is no place in front of it.
 *
 * XDP is not interrupted by XDP on the same CPU. The filter counts each packet that it sees before it is left, so
 * whatever goes by while nobody looks on shows in its counter.
 */
#include <netctl/lib/ctx_traced.h>

#include <bpf/bpf_tracing.h>

#include <netctl/lib/capture.h>

struct xdp_buff___nc {
	void *data;
	void *data_end;
} __attribute__((preserve_access_index));

/* What the filter works on. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_capture_held);
} held SEC(".maps");

/* The filter's own map `stats`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_stats);
} filter_stats SEC(".maps");

/* Userspace aims both at the filter. The sections name a function of the kernel that takes and returns the same, so
 * that the object loads as it is. */
SEC("fentry/xdp_master_redirect")
int BPF_PROG(xdp_capture_enter, struct xdp_buff___nc *xdp)
{
	struct nc_capture_counts *counts;
	struct nc_capture_held *frame;
	struct nc_traced traced;
	struct nc_packet packet;
	__u32 zero = 0, bytes;

	counts = bpf_map_lookup_elem(&capture_counts, &zero);
	frame = bpf_map_lookup_elem(&held, &zero);
	if (!counts || !frame)
		return 0;
	traced.data = xdp->data;
	traced.readable = (__u64)xdp->data_end - (__u64)xdp->data;
	traced.length = bpf_xdp_get_buff_len((struct xdp_md *)xdp);
	frame->entered = 1;
	frame->bytes = 0;
	frame->matches = nc_capture_wants(&traced, &packet, counts);
	if (!frame->matches)
		return 0;
	frame->time_ns = bpf_ktime_get_boot_ns();
	frame->len = traced.length;
	bytes = traced.readable < snaplen ? traced.readable : snaplen;
	if (bytes > NC_CAPTURE_HELD)
		bytes = NC_CAPTURE_HELD;
	nc_opaque(bytes);
	bytes = ((bytes - 1) & (NC_CAPTURE_HELD - 1)) + 1;
	if (!nc_ctx_load(&traced, 0, frame->bytes_held, bytes))
		frame->bytes = bytes;
	return 0;
}

SEC("fexit/xdp_master_redirect")
int BPF_PROG(xdp_capture_leave, struct xdp_buff___nc *xdp, int answer)
{
	struct nc_capture_counts *counts;
	struct nc_capture_held *frame;
	const struct nc_stats *stats;
	struct nc_captured *record;
	struct nc_traced traced;
	__u32 zero = 0;
	bool entered;

	counts = bpf_map_lookup_elem(&capture_counts, &zero);
	frame = bpf_map_lookup_elem(&held, &zero);
	stats = bpf_map_lookup_elem(&filter_stats, &zero);
	if (!counts || !frame || !stats)
		return 0;
	entered = frame->entered;
	frame->entered = 0;
	/* From the first packet on whose way was seen whole. */
	if (counts->begun)
		counts->unseen += stats->packets - counts->seen_until - entered;
	else if (!entered)
		return 0;
	counts->begun = 1;
	counts->seen_until = stats->packets;
	if (!entered || !frame->matches)
		return 0;
	counts->matched++;
	traced.data = frame->bytes_held;
	traced.readable = frame->bytes;
	traced.length = frame->len;
	record = frame->bytes ? nc_capture(&traced, frame->bytes, frame->len) : NULL;
	if (!record) {
		counts->lost++;
		return 0;
	}
	record->time_ns = frame->time_ns;
	record->answer = answer;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
