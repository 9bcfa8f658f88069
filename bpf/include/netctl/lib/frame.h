/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading bytes of a frame, and walking over IPv6 extension headers: what parse.h and socket.h share.
 */
#ifndef NETCTL_LIB_FRAME_H
#define NETCTL_LIB_FRAME_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before frame.h"
#endif

#include <netctl/abi/packet.h>

/* Ethernet types, network order. */
#define NC_ETH_IPV4 bpf_htons(0x0800)
#define NC_ETH_IPV6 bpf_htons(0x86dd)
#define NC_ETH_8021Q bpf_htons(0x8100)
#define NC_ETH_8021AD bpf_htons(0x88a8)

#define NC_PROTO_ICMP 1
#define NC_PROTO_TCP 6
#define NC_PROTO_UDP 17
#define NC_PROTO_DCCP 33
#define NC_PROTO_FRAGMENT 44
#define NC_PROTO_AH 51
#define NC_PROTO_ICMPV6 58
#define NC_PROTO_SCTP 132
#define NC_PROTO_UDPLITE 136

/* The largest offset that a walk can reach: 14 + 2 * 4 + 40 + 8 * 2048, and some. */
#define NC_OFFSET_MASK 0x7fffu

struct nc_frame {
	nc_ctx *ctx;
	const void *data, *data_end; /* the part that can be read directly */
	__u32 length;		     /* of the whole frame */
};

/*
 * `size` bytes at `offset`, or NULL where the frame ends before. `copy` holds them when they are
 * not in the directly readable part, as in frames of several buffers; the next call may reuse it
 * once the bytes are no longer needed. `size` is a constant.
 */
static __always_inline const void *nc_bytes(const struct nc_frame *frame, __u32 offset, __u32 size,
					    void *copy)
{
	const void *at = frame->data + offset;

	if (nc_ctx_is_padded() && offset + size > frame->length)
		return NULL;
	if (nc_ctx_is_direct() && likely(at + size <= frame->data_end))
		return at;
	if (offset + size > frame->length || nc_ctx_load(frame->ctx, offset, copy, size))
		return NULL;
	return copy;
}

static __always_inline bool nc_is_vlan(__be16 type)
{
	return type == NC_ETH_8021Q || type == NC_ETH_8021AD;
}

/* Where the IP header starts: the tags that the parser looked through are behind the link header. */
static __always_inline __u32 nc_ip_offset(nc_ctx *ctx)
{
	__u32 offset = 12;
	__be16 type = 0;
	int i;

	if (!nc_ctx_has_ether(ctx))
		return 0;
#pragma unroll
	for (i = 0; i < NC_MAX_VLAN_TAGS; i++) {
		if (nc_ctx_load(ctx, offset, &type, sizeof(type)) || !nc_is_vlan(type))
			break;
		offset += 4;
	}
	return offset + 2;
}

/* Extension headers that are walked. ESP (50) and "no next header" (59) are upper layers here:
 * nothing can be read behind them. */
static __always_inline bool nc_is_extension(__u32 next)
{
	/* hop-by-hop, routing, fragment, authentication, destination options */
	const __u64 low = 1ull << 0 | 1ull << 43 | 1ull << 44 | 1ull << 51 | 1ull << 60;
	/* mobility 135, HIP 139, shim6 140; less 128 */
	const __u64 high = 1ull << 7 | 1ull << 11 | 1ull << 12;

	if (next < 64)
		return low >> next & 1;
	return next >= 128 && next < 192 && high >> (next - 128) & 1;
}

static __always_inline bool nc_has_ports(__u32 proto)
{
	return proto == NC_PROTO_TCP || proto == NC_PROTO_UDP || proto == NC_PROTO_SCTP ||
	       proto == NC_PROTO_DCCP || proto == NC_PROTO_UDPLITE;
}

/* What a walk over extension headers found, as one number: a global function returns no struct. */
#define NC_CHAIN_OFFSET(found) ((__u32)(found)&NC_OFFSET_MASK)
#define NC_CHAIN_PROTO(found) ((__u32)((found) >> 16) & 0xff)
#define NC_CHAIN_FRAG(found) ((__u32)((found) >> 24) & 0xff)
#define NC_CHAIN_FAULT(found) ((__u32)((found) >> 32)) /* 1 + enum nc_unparsed, or 0 */

static __always_inline __u64 nc_chain(__u32 offset, __u32 proto, __u32 frag)
{
	return (__u64)frag << 24 | (__u64)proto << 16 | offset;
}

static __always_inline __u64 nc_chain_fault(enum nc_unparsed reason)
{
	return (__u64)(reason + 1) << 32;
}

/*
 * Walks the extension headers of an IPv6 packet: `offset` is where the first one, of kind `next`,
 * starts, and `end` where the payload ends. A global function: the verifier looks at it once, not
 * once for each way to get here. Rare enough in traffic for the call not to matter.
 *
 * RFC 8200: any order, any number of times, but hop-by-hop options come first or not at all.
 */
__noinline __u64 nc_walk_extensions(nc_ctx *ctx, __u32 offset, __u32 end, __u32 next)
{
	struct nc_frame frame = {
		.ctx = ctx,
		.data = nc_ctx_data(ctx),
		.data_end = nc_ctx_data_end(ctx),
		.length = nc_ctx_length(ctx),
	};
	__u32 frag = NC_FRAG_NONE;
	int i;

	for (i = 0; i < NC_MAX_EXTENSION_HEADERS; i++) {
		__u8 copy[8];
		const __u8 *header;
		__u32 size;

		if (!nc_is_extension(next))
			return nc_chain(offset, next, frag);
		if (next == 0 && i > 0)
			return nc_chain_fault(NC_UNPARSED_CHAIN);
		offset &= NC_OFFSET_MASK;
		nc_opaque(offset); /* the verifier shall see the mask at each turn */
		offset &= NC_OFFSET_MASK;
		/* All of them are at least 8 bytes. */
		if (offset + 8 > end)
			return nc_chain_fault(NC_UNPARSED_CHAIN);
		header = nc_bytes(&frame, offset, 8, copy);
		if (!header)
			return nc_chain_fault(NC_UNPARSED_CHAIN);

		if (next == NC_PROTO_FRAGMENT) {
			__u32 field = header[2] << 8 | header[3];

			next = header[0];
			offset += 8;
			/* What is behind belongs to the middle of a packet. */
			if (field & 0xfff8)
				return nc_chain(offset & NC_OFFSET_MASK, next, NC_FRAG_LATER);
			if (field & 1)
				frag = NC_FRAG_FIRST;
			continue;
		}
		size = next == NC_PROTO_AH ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		if (offset + size > end)
			return nc_chain_fault(NC_UNPARSED_CHAIN);
		next = header[0];
		offset += size;
	}
	if (nc_is_extension(next))
		return nc_chain_fault(NC_UNPARSED_BOUND);
	return nc_chain(offset & NC_OFFSET_MASK, next, frag);
}

#endif
