/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writing the DSCP into IPv4 and IPv6 headers, checksums included.
 */
#ifndef NETCTL_LIB_DSCP_H
#define NETCTL_LIB_DSCP_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include ctx_skb.h before dscp.h"
#endif

#include <netctl/lib/parse.h>

/*
 * Sets the DSCP of an IP packet, and leaves its ECN bits. 0, or a negative errno of a helper. Pointers
 * into the packet are void afterwards.
 */
static __always_inline long nc_set_dscp(nc_ctx *ctx, const struct nc_packet *p, __u32 dscp)
{
	__u32 offset = nc_ip_offset(ctx);
	__be16 before, after;
	long status;

	/* The first two bytes hold it in both versions. */
	status = nc_ctx_load(ctx, offset, &before, sizeof(before));
	if (status)
		return status;
	if (p->has & NC_HAS_IPV4) {
		after = (before & bpf_htons(0xff03)) | bpf_htons(dscp << 2);
		if (after == before)
			return 0;
		status = bpf_l3_csum_replace(ctx, offset + 10, before, after, sizeof(after));
		if (status)
			return status;
		/* The header's sum stays what it was, and so does the sum of the packet. */
		return bpf_skb_store_bytes(ctx, offset, &after, sizeof(after), 0);
	}
	after = (before & bpf_htons(0xf03f)) | bpf_htons(dscp << 6);
	if (after == before)
		return 0;
	return bpf_skb_store_bytes(ctx, offset, &after, sizeof(after), BPF_F_RECOMPUTE_CSUM);
}

#endif
