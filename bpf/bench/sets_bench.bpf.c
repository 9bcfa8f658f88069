// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sets alone, for the prog suite and scripts/bench: membership of many addresses in one run, and the
 * cost of a lookup beside the kernel's own hash and trie.
 */
#include <netctl/lib/ctx_xdp.h>

#include <netctl/abi/bench.h>
#include <netctl/lib/parse.h>
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

struct nc_bench_header headers[NC_BENCH_HEADERS] SEC(".data.headers");
struct nc_bench_walk walk SEC(".data.walk");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counter SEC(".maps");

const volatile __u32 wanted = 1 << NC_FIELD_SRC;

static __always_inline bool next_packet(struct xdp_md *ctx, struct nc_packet *p)
{
	const struct nc_bench_header *h;
	__u32 zero = 0, i = walk.next;
	__u64 *count;

	if (nc_parse(ctx, nc_ctx_length(ctx), wanted, p) != NC_PARSED)
		return false;
	walk.next = i + 1 < walk.count ? i + 1 : 0;
	h = &headers[i & (NC_BENCH_HEADERS - 1)];
	p->src[0] ^= h->src[0];
	if (p->has & NC_HAS_IPV6) {
		p->src[1] ^= h->src[1];
		p->src[2] ^= h->src[2];
		p->src[3] ^= h->src[3];
	}
	count = bpf_map_lookup_elem(&counter, &zero);
	if (count)
		*count += 1;
	return true;
}

SEC("xdp")
int bench_parse(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, &p))
		return -1;
	return p.src[0] + p.src[1] + p.src[2] + p.src[3];
}

/* 1 for a member. */
SEC("xdp")
int bench_set(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, &p))
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

	if (!next_packet(ctx, &p))
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

	if (!next_packet(ctx, &p))
		return -1;
	__builtin_memcpy(key.address, p.src, sizeof(key.address));
	if (p.has & NC_HAS_IPV4)
		return !!bpf_map_lookup_elem(&floor_cidr4, &key);
	key.length = 128;
	return !!bpf_map_lookup_elem(&floor_cidr6, &key);
}

char LICENSE[] SEC("license") = "GPL";
