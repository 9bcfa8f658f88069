// SPDX-License-Identifier: GPL-2.0-only
/*
 * The classifier alone, for the prog suite and scripts/bench: many packets in one run, given as
 * struct nc_packet or as a frame whose fields are varied by a table of headers.
 */
#include <netctl/lib/ctx_xdp.h>

#include <netctl/abi/bench.h>
#include <netctl/lib/changes.h>
#include <netctl/lib/classify.h>
#include <netctl/lib/parse.h>

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

struct nc_bench_header headers[NC_BENCH_HEADERS] SEC(".data.headers");
struct nc_bench_walk walk SEC(".data.walk");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counter SEC(".maps");

/* What the compiler of rules wants to be parsed. */
const volatile __u32 wanted = ~0u;

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
	p->dst[0] ^= h->dst[0];
	if (p->has & NC_HAS_IPV6) {
		p->src[1] ^= h->src[1];
		p->src[2] ^= h->src[2];
		p->src[3] ^= h->src[3];
		p->dst[1] ^= h->dst[1];
		p->dst[2] ^= h->dst[2];
		p->dst[3] ^= h->dst[3];
	}
	p->sport ^= h->sport;
	p->dport ^= h->dport;
	p->proto ^= h->proto;
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
	return p.src[0] + p.dst[0] + p.src[3] + p.dst[3] + p.sport + p.dport + p.proto;
}

SEC("xdp")
int bench_classify(struct xdp_md *ctx)
{
	struct nc_packet p = {};

	if (!next_packet(ctx, &p))
		return -1;
	return nc_classify(&p, 0);
}

char LICENSE[] SEC("license") = "GPL";
