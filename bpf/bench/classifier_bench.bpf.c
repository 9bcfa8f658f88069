// SPDX-License-Identifier: GPL-2.0-only
/*
 * The classifier alone, for the prog suite and scripts/bench: many packets in one run, given as
 * struct nc_packet or as a frame whose fields are varied by a table of headers.
 */
#include "next_packet.h"

#include <netctl/lib/changes.h>
#include <netctl/lib/classify.h>

/* ---- exactness: packets and set bits in, positions out ---- */

struct nc_packet packets[NC_BENCH_PACKETS] SEC(".data.packets");
__u64 set_bits[NC_BENCH_PACKETS] SEC(".data.set_bits");
__u32 positions[NC_BENCH_PACKETS] SEC(".data.positions");
__u32 packet_count SEC(".data.count");
/* Applied to the answers if there are any. */
struct nc_changes block SEC(".data.block");
__u32 has_changes SEC(".data.has_changes");

static long classify_one(__u32 i, void *unused)
{
	if (i >= NC_BENCH_PACKETS)
		return 1;
	positions[i] = nc_classify(&packets[i], set_bits[i]);
	if (has_changes && positions[i] != NC_CLASSIFY_ERROR)
		positions[i] = nc_changed(&block, &packets[i], positions[i]);
	return 0;
}

SEC("xdp")
int classify_packets(struct xdp_md *ctx)
{
	bpf_loop(packet_count, classify_one, NULL, 0);
	return XDP_PASS;
}

/* ---- cost: each run parses its frame and takes the next header ---- */

/* What the compiler of rules wants to be parsed. */
const volatile __u32 wanted = ~0u;

SEC("xdp")
int bench_parse(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, wanted, &p))
		return -1;
	return p.src[0] + p.dst[0] + p.src[3] + p.dst[3] + p.sport + p.dport + p.proto;
}

SEC("xdp")
int bench_classify(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, wanted, &p))
		return -1;
	return nc_classify(&p, 0);
}

char LICENSE[] SEC("license") = "GPL";
