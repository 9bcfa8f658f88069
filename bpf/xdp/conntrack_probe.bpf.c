// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether connection tracking has an entry for a datagram of UDP, in the network namespace of whoever runs this:
 * by BPF_PROG_TEST_RUN, and over a frame that does not matter.
 */
#define NC_CONNTRACK
#include <netctl/lib/ctx_xdp.h>

#include <netctl/lib/conntrack.h>

/* Of a struct bpf_sock_tuple. */
#define WORDS (sizeof(struct bpf_sock_tuple) / sizeof(__u32))

const volatile __u32 asked[WORDS]; /* network order */
const volatile __u32 asked_size;   /* of the tuple: of IPv4, or of IPv6 */

SEC("xdp")
int conntrack_probe(struct xdp_md *ctx)
{
	const struct nc_packet packet = { .proto = NC_PROTO_UDP };
	struct bpf_sock_tuple tuple;
	__u64 tracked;

	/* One by one: what is copied as if it were not volatile is the zeroes that stand here. */
	for (__u32 i = 0; i < WORDS; i++)
		((__u32 *)&tuple)[i] = asked[i];
	tracked = nc_ct_entry(ctx, &packet, &tuple,
			      asked_size == sizeof(tuple.ipv4) ? sizeof(tuple.ipv4) :
								 sizeof(tuple.ipv6),
			      NC_PROTO_UDP, NC_CT_INVALID);
	return tracked >> 40 & NC_HAS_CT_MARK ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
