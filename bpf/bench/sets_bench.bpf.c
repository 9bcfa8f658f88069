// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sets alone, for the prog suite and scripts/bench: membership of many addresses in one run, and the
 * cost of a lookup beside the kernel's own hash and trie.
 */
#include "next_packet.h"

#include <netctl/lib/sets.h>

/* ---- exactness: packets in, bits out ---- */

struct nc_packet packets[NC_BENCH_PACKETS] SEC(".data.packets");
__u64 answers[NC_BENCH_PACKETS] SEC(".data.answers");
__u32 packet_count SEC(".data.count");

static long ask_one(__u32 i, void *unused)
{
	if (i >= NC_BENCH_PACKETS)
		return 1;
	answers[i] = nc_set_bits(&packets[i]);
	return 0;
}

SEC("xdp")
int ask_packets(struct xdp_md *ctx)
{
	bpf_loop(packet_count, ask_one, NULL, 0);
	return XDP_PASS;
}

/* ---- cost: each run parses its frame and takes the next source address ---- */

SEC("xdp")
int bench_parse(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, 1 << NC_FIELD_SRC, &p))
		return -1;
	return p.src[0] + p.src[1] + p.src[2] + p.src[3];
}

/* 1 for a member. */
SEC("xdp")
int bench_set(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, 1 << NC_FIELD_SRC, &p))
		return -1;
	return nc_set_bits(&p);
}

/* The floors: what a program pays that has the map for itself. */

struct nc_map_host4 floor_host4 SEC(".maps");
struct nc_map_host6 floor_host6 SEC(".maps");
struct nc_map_cidr4 floor_cidr4 SEC(".maps");
struct nc_map_cidr6 floor_cidr6 SEC(".maps");

SEC("xdp")
int bench_hash(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, 1 << NC_FIELD_SRC, &p))
		return -1;
	if (p.has & NC_HAS_IPV4)
		return !!bpf_map_lookup_elem(&floor_host4, p.src);
	return !!bpf_map_lookup_elem(&floor_host6, p.src);
}

SEC("xdp")
int bench_trie(struct xdp_md *ctx)
{
	struct nc_packet p = {};
	struct nc_set_cidr6 key = { .length = 32 };

	if (!next_packet(ctx, 1 << NC_FIELD_SRC, &p))
		return -1;
	__builtin_memcpy(key.address, p.src, sizeof(key.address));
	if (p.has & NC_HAS_IPV4)
		return !!bpf_map_lookup_elem(&floor_cidr4, &key);
	key.length = 128;
	return !!bpf_map_lookup_elem(&floor_cidr6, &key);
}

char LICENSE[] SEC("license") = "GPL";
