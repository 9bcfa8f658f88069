/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The seam between lib/ and a hook (ctx_xdp.h tells what it has), for tc: tcx and clsact.
 *
 * The start of an skb is its link header on the way in and on the way out. On devices without one (tun,
 * WireGuard, IP tunnels) it is the IP header, which userspace tells by `has_ether`.
 */
#ifndef NETCTL_LIB_CTX_H
#define NETCTL_LIB_CTX_H

#include <netctl/lib/bpf.h>

#define nc_ctx struct __sk_buff /* no typedef: the verifier knows contexts by their struct */

#define nc_ctx_ct_lookup bpf_skb_ct_lookup

/* linux/pkt_cls.h; tcx has the same numbers. */
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define TC_ACT_REDIRECT 7

const volatile __u32 has_ether = 1;
const volatile __u32 simulate; /* ruleset.h says what it is */

static __always_inline bool nc_ctx_is_direct(void)
{
	return true;
}

static __always_inline void *nc_ctx_data(const nc_ctx *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *nc_ctx_data_end(const nc_ctx *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline long nc_ctx_load(nc_ctx *ctx, __u32 offset, void *to, __u32 size)
{
	return bpf_skb_load_bytes(ctx, offset, to, size);
}

/* A test run takes only the start of a long frame, and no IP packet without a whole header; the true
 * length comes as cb[0]. */
static __always_inline bool nc_ctx_is_padded(void)
{
	return simulate;
}

static __always_inline __u32 nc_ctx_length(const nc_ctx *ctx)
{
	__u32 length;

	if (!simulate)
		return ctx->len;
	length = ctx->cb[0];
	nc_opaque(length); /* else the compiler adds to `ctx` and loads once, which is refused */
	return length;
}

static __always_inline __u32 nc_ctx_ifindex(const nc_ctx *ctx)
{
	return ctx->ifindex;
}

static __always_inline __u32 nc_ctx_mark(const nc_ctx *ctx)
{
	return ctx->mark;
}

static __always_inline bool nc_ctx_has_ether(const nc_ctx *ctx)
{
	return has_ether;
}

static __always_inline bool nc_ctx_vlan(const nc_ctx *ctx, __u16 *tci)
{
	if (!ctx->vlan_present)
		return false;
	*tci = ctx->vlan_tci;
	return true;
}

/* Packets that the stack handles as one may be longer than an IP header can say ("BIG TCP"). */
static __always_inline bool nc_ctx_is_super(const nc_ctx *ctx)
{
	return ctx->gso_size;
}

/* The helper is made for answers: it unshares the packet, and makes one of what travelled as one. */
static __always_inline long nc_ctx_resize(nc_ctx *ctx, __u32 length, __u32 wanted)
{
	return bpf_skb_change_tail(ctx, wanted, 0);
}

static __always_inline long nc_ctx_store(nc_ctx *ctx, __u32 offset, void *from, __u32 size)
{
	return bpf_skb_store_bytes(ctx, offset, from, size,
				   BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

/*
 * No field of the context says so, but the helper for checksums knows: it leaves alone what the sender is to
 * fill in (CHECKSUM_PARTIAL). So it is asked to change the two bytes at `offset`, which are put back.
 */
static __always_inline bool nc_ctx_checksum_is_open(nc_ctx *ctx, __u32 offset)
{
	__be16 before = 0, after = 0;

	if (nc_ctx_load(ctx, offset, &before, sizeof(before)) ||
	    bpf_l4_csum_replace(ctx, offset, 0, bpf_htons(1), sizeof(before)) ||
	    nc_ctx_load(ctx, offset, &after, sizeof(after)))
		return false;
	bpf_skb_store_bytes(ctx, offset, &before, sizeof(before), 0);
	return before == after;
}

#endif
