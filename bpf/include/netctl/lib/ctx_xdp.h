/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The seam between lib/ and a hook, for XDP. A program includes exactly one ctx_*.h, before any
 * other header of lib/. Each of them gives:
 *
 *   nc_ctx                       the hook's context
 *   nc_ctx_is_direct()           whether any of it can be read directly: a constant
 *   nc_ctx_data(), …_data_end()  what can be read directly: the start of the frame, maybe not all
 *   nc_ctx_load()                copies from anywhere in the frame; 0, or a negative errno
 *   nc_ctx_length()              of the frame in bytes, fragments included
 *   nc_ctx_ifindex()             of the interface that the hook sits on
 *   nc_ctx_mark()                of the packet; 0 where there is none
 *   nc_ctx_ct_lookup()           the kernel's function that finds an entry of connection tracking
 *   nc_ctx_has_ether()           whether the frame starts with an Ethernet header
 *   nc_ctx_vlan()                a tag that the kernel took out of the frame; it is outermost
 *   nc_ctx_is_super()            whether many packets travel as one, maybe with a length of 0 in
 *                                its IP header since the field is too small
 *   nc_ctx_is_padded()           whether there may be more bytes than nc_ctx_length() says: in
 *                                simulation, a constant
 *   nc_ctx_resize()              makes the frame longer or shorter; its bytes are anything then
 *   nc_ctx_store()               writes anywhere into the frame; 0, or a negative errno
 *   nc_ctx_checksum_is_open()    whether a checksum of the packet is still to be filled in by whoever
 *                                sends it on
 */
#ifndef NETCTL_LIB_CTX_H
#define NETCTL_LIB_CTX_H

#include <netctl/lib/bpf.h>

#define nc_ctx struct xdp_md /* no typedef: the verifier knows contexts by their struct */

#define nc_ctx_ct_lookup bpf_xdp_ct_lookup

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
	return bpf_xdp_load_bytes(ctx, offset, to, size);
}

/* Kernel 6.2: the context as the kernel sees it, at no cost. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

struct xdp_buff___nc {
	__u32 flags;
} __attribute__((preserve_access_index));

/* Most frames have one buffer, and then the helper's answer is the distance of two pointers. Looking
 * whether that is so costs less than the call: where the kernel guards each return (AMD's SRSO), a
 * call alone takes 8 ns, as much as all of the parsing. */
static __always_inline __u32 nc_ctx_length(nc_ctx *ctx)
{
	if (bpf_ksym_exists(bpf_cast_to_kern_ctx)) {
		struct xdp_buff___nc *xdp = bpf_cast_to_kern_ctx(ctx);

		if (likely(!(xdp->flags & XDP_FLAGS_HAS_FRAGS)))
			return ctx->data_end - ctx->data;
	}
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline __u32 nc_ctx_ifindex(const nc_ctx *ctx)
{
	return ctx->ingress_ifindex;
}

#include <netctl/lib/ctx_driver.h>

/* It grows at its start: drivers keep room there for XDP, and seldom at the end. */
static __always_inline long nc_ctx_resize(nc_ctx *ctx, __u32 length, __u32 wanted)
{
	if (wanted > length)
		return bpf_xdp_adjust_head(ctx, (int)(length - wanted));
	return wanted < length ? bpf_xdp_adjust_tail(ctx, (int)(wanted - length)) : 0;
}

static __always_inline long nc_ctx_store(nc_ctx *ctx, __u32 offset, void *from, __u32 size)
{
	return bpf_xdp_store_bytes(ctx, offset, from, size);
}

static __always_inline bool nc_ctx_checksum_is_open(nc_ctx *ctx, __u32 offset)
{
	return false;
}

#endif
