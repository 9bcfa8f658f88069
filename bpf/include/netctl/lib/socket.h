/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What this host has for a packet (enum nc_socket): the kernel's own tables of sockets are asked, in the
 * network namespace that the packet came into. There is no table here, so nothing to fill up (I15).
 */
#ifndef NETCTL_LIB_SOCKET_H
#define NETCTL_LIB_SOCKET_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/packet.h>
#include <netctl/lib/frame.h>

/* Of the TCP connection, or of the listener: request sockets and those in TIME_WAIT are connections. The
 * barriers, which are not the same, keep the compiler from joining this with what follows: to the verifier the
 * two helpers return different things. */
static __always_inline __u32 nc_tcp_socket(nc_ctx *ctx, struct bpf_sock_tuple *tuple, __u32 size)
{
	struct bpf_sock *socket = bpf_skc_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	__u32 state;

	if (!socket)
		return NC_SOCKET_NONE;
	state = socket->state;
	asm volatile("" : "+r"(state));
	bpf_sk_release(socket);
	return state == BPF_TCP_LISTEN ? NC_SOCKET_LISTENING : NC_SOCKET_ESTABLISHED;
}

/* A connected UDP socket is in the state of an established TCP connection. */
static __always_inline __u32 nc_udp_socket(nc_ctx *ctx, struct bpf_sock_tuple *tuple, __u32 size)
{
	struct bpf_sock *socket = bpf_sk_lookup_udp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	__u32 state;

	if (!socket)
		return NC_SOCKET_NONE;
	state = socket->state;
	asm volatile("" : "+r"(state), "+r"(socket));
	bpf_sk_release(socket);
	return state == BPF_TCP_ESTABLISHED ? NC_SOCKET_ESTABLISHED : NC_SOCKET_LISTENING;
}

static __always_inline __u32 nc_socket_for(nc_ctx *ctx, struct bpf_sock_tuple *tuple, bool ipv4,
					   __u32 proto)
{
	__u32 size = ipv4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6);

	if (proto == NC_PROTO_TCP)
		return nc_tcp_socket(ctx, tuple, size);
	if (proto == NC_PROTO_UDP)
		return nc_udp_socket(ctx, tuple, size);
	return NC_SOCKET_NONE;
}

/* ICMP that reports what became of a packet: destination unreachable, time exceeded, parameter problem, and
 * in ICMPv6 packet too big. A redirect is none: it is about routes. */
static __always_inline bool nc_is_icmp_error(bool ipv4, __u32 type)
{
	return ipv4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/*
 * The addresses and ports that an answer to the packet quoted at `offset` would have; `end` is where the ICMP
 * message ends. Returns the quoted packet's upper-layer protocol, or 0 where no ports can be read. Copies what it
 * reads, in small pieces: errors are rare, and below the programs there is little room on the stack.
 */
static __always_inline __u32 nc_read_quoted(nc_ctx *ctx, __u32 offset, __u32 end, bool ipv4,
					    struct bpf_sock_tuple *tuple)
{
	__u8 start[10];
	__be16 ports[2];
	__u32 proto;

	offset &= NC_OFFSET_MASK;
	if (offset + (ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) > end)
		return 0;
	if (ipv4) {
		if (nc_ctx_load(ctx, offset, start, 10) ||
		    nc_ctx_load(ctx, offset + 12, &tuple->ipv4.daddr, 4) ||
		    nc_ctx_load(ctx, offset + 16, &tuple->ipv4.saddr, 4))
			return 0;
		if (start[0] >> 4 != 4 || (start[0] & 0xf) < 5 ||
		    (start[6] << 8 | start[7]) & 0x1fff)
			return 0;
		proto = start[9];
		offset += (start[0] & 0xf) * 4;
	} else {
		if (nc_ctx_load(ctx, offset, start, 8) ||
		    nc_ctx_load(ctx, offset + 8, tuple->ipv6.daddr, sizeof(tuple->ipv6.daddr)) ||
		    nc_ctx_load(ctx, offset + 24, tuple->ipv6.saddr, sizeof(tuple->ipv6.saddr)))
			return 0;
		if (start[0] >> 4 != 6)
			return 0;
		proto = start[6];
		offset += sizeof(struct ipv6hdr);
		/* What is sent in fragments; other extension headers would take a walk, and more stack than
		 * there is. */
		if (proto == NC_PROTO_FRAGMENT) {
			if (offset + 8 > end || nc_ctx_load(ctx, offset, start, 8) ||
			    (start[2] << 8 | start[3]) & 0xfff8)
				return 0;
			proto = start[0];
			offset += 8;
		}
	}
	if ((proto != NC_PROTO_TCP && proto != NC_PROTO_UDP) || offset + 4 > end ||
	    nc_ctx_load(ctx, offset, ports, sizeof(ports)))
		return 0;
	if (ipv4) {
		tuple->ipv4.sport = ports[1];
		tuple->ipv4.dport = ports[0];
	} else {
		tuple->ipv6.sport = ports[1];
		tuple->ipv6.dport = ports[0];
	}
	return proto;
}

/* Addresses and ports of `p`, for looking up its socket; returns the size of what it writes. */
static __always_inline __u32 nc_tuple_of(const struct nc_packet *p, bool ipv4,
					 struct bpf_sock_tuple *tuple)
{
	if (ipv4) {
		tuple->ipv4.saddr = p->src[0];
		tuple->ipv4.daddr = p->dst[0];
		tuple->ipv4.sport = bpf_htons(p->sport);
		tuple->ipv4.dport = bpf_htons(p->dport);
		return sizeof(tuple->ipv4);
	}
	__builtin_memcpy(tuple->ipv6.saddr, p->src, sizeof(tuple->ipv6.saddr));
	__builtin_memcpy(tuple->ipv6.daddr, p->dst, sizeof(tuple->ipv6.daddr));
	tuple->ipv6.sport = bpf_htons(p->sport);
	tuple->ipv6.dport = bpf_htons(p->dport);
	return sizeof(tuple->ipv6);
}

#ifdef NC_NO_SOCKETS
static __always_inline __u32 nc_find_socket(nc_ctx *ctx, const struct nc_packet *p, __u32 offset,
					    __u32 end)
{
	return NC_SOCKET_NONE;
}
#else
/*
 * What this host has for `p`, a packet whose transport header is at `offset` and which ends at `end`; its
 * addresses, ports, `proto` and `icmp_type` have been read.
 * A global function, like nc_walk_extensions(): the verifier looks at it once.
 */
__noinline __u32 nc_find_socket(nc_ctx *ctx, const struct nc_packet *p, __u32 offset, __u32 end)
{
	struct bpf_sock_tuple tuple = {};
	bool ipv4;

	if (!p)
		return NC_SOCKET_NONE;
	ipv4 = p->has & NC_HAS_IPV4;
	if (p->proto == NC_PROTO_ICMP || p->proto == NC_PROTO_ICMPV6) {
		__u32 proto, found;

		if (!nc_is_icmp_error(ipv4, p->icmp_type))
			return NC_SOCKET_NONE;
		proto = nc_read_quoted(ctx, offset + 8, end, ipv4, &tuple);
		found = nc_socket_for(ctx, &tuple, ipv4, proto);
		/* A listener has sent nothing in its own name: its answers belong to requests. */
		return found == NC_SOCKET_ESTABLISHED ||
				       (found == NC_SOCKET_LISTENING && proto == NC_PROTO_UDP) ?
			       NC_SOCKET_RELATED :
			       NC_SOCKET_NONE;
	}
	nc_tuple_of(p, ipv4, &tuple);
	return nc_socket_for(ctx, &tuple, ipv4, p->proto);
}
#endif

#endif
