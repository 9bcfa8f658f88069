/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For measuring: each run of a program parses its frame and varies it by the next of a table of headers.
 */
#ifndef NETCTL_BENCH_NEXT_PACKET_H
#define NETCTL_BENCH_NEXT_PACKET_H

#include <netctl/lib/ctx_xdp.h>

#include <netctl/abi/bench.h>
#include <netctl/lib/parse.h>

struct nc_bench_header headers[NC_BENCH_HEADERS] SEC(".data.headers");
struct nc_bench_walk walk SEC(".data.walk");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counter SEC(".maps");

static __always_inline void vary_address(__u32 has, __be32 *words, const __be32 *by)
{
	words[0] ^= by[0];
	if (has & NC_HAS_IPV6) {
		words[1] ^= by[1];
		words[2] ^= by[2];
		words[3] ^= by[3];
	}
}

/* Parses the fields in `wanted` (bits NC_FIELD_...), counts, and gives these fields their new values. */
static __always_inline bool next_packet(struct xdp_md *ctx, __u32 wanted, struct nc_packet *p)
{
	const struct nc_bench_header *h;
	__u32 zero = 0, i = walk.next;
	__u64 *count;

	if (nc_parse(ctx, nc_ctx_length(ctx), wanted, p) != NC_PARSED)
		return false;
	walk.next = i + 1 < walk.count ? i + 1 : 0;
	h = &headers[i & (NC_BENCH_HEADERS - 1)];
	if (wanted & 1 << NC_FIELD_SRC)
		vary_address(p->has, p->src, h->src);
	if (wanted & 1 << NC_FIELD_DST)
		vary_address(p->has, p->dst, h->dst);
	if (wanted & 1 << NC_FIELD_SPORT)
		p->sport ^= h->sport;
	if (wanted & 1 << NC_FIELD_DPORT)
		p->dport ^= h->dport;
	if (wanted & 1 << NC_FIELD_PROTO)
		p->proto ^= h->proto;
	count = bpf_map_lookup_elem(&counter, &zero);
	if (count)
		*count += 1;
	return true;
}

#endif
