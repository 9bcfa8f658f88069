/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bytes of a frame -> the fields that rules match (struct nc_packet). The same meaning as
 * userspace/classifier/packet.cpp, which the prog suite compares it with, field by field.
 *
 * Whether a packet can be parsed never depends on the rules: all headers up to the transport
 * header are checked for every packet. Only fetching its fields is left out where no rule looks at
 * them (`wanted`, a constant of the program, so that the verifier removes the code).
 */
#ifndef NETCTL_LIB_PARSE_H
#define NETCTL_LIB_PARSE_H

#include <netctl/lib/bpf.h>

#ifndef NETCTL_LIB_CTX_H
#error "include the hook's ctx_*.h before parse.h"
#endif

#include <netctl/abi/classify.h>
#include <netctl/abi/packet.h>
#include <netctl/lib/conntrack.h>
#include <netctl/lib/frame.h>
#include <netctl/lib/socket.h>

#define NC_WANT(field) (1u << NC_FIELD_##field)
#define NC_WANT_CT (NC_WANT(CT) | NC_WANT(CT_MARK))

/* nc_parse() returns this, or an enum nc_unparsed. */
#define NC_PARSED (-1)

/* Which first fragment it is that has `left` bytes of its transport header and what follows. */
static __always_inline __u32 nc_first_fragment(__u32 proto, __u32 icmp_proto, __u32 left)
{
	__u32 needed = 0;

	if (proto == NC_PROTO_TCP)
		needed = 14;
	else if (nc_has_ports(proto))
		needed = 4;
	else if (proto == icmp_proto)
		needed = 2;
	return left < needed ? NC_FRAG_TINY : NC_FRAG_FIRST;
}

/* Transport fields: what is left of the header within the IP packet, which ends at `end`. */
static __always_inline __u32 nc_parse_transport(const struct nc_frame *frame, __u32 wanted,
						__u32 offset, __u32 end, __u32 proto,
						__u32 icmp_proto, struct nc_packet *p)
{
	__u32 has = 0;
	__u8 copy[4];

	offset &= NC_OFFSET_MASK;
	nc_opaque(offset);
	offset &= NC_OFFSET_MASK;
	if (wanted & (NC_WANT(SPORT) | NC_WANT(DPORT)) && nc_has_ports(proto) &&
	    offset + 4 <= end) {
		const __be16 *ports = nc_bytes(frame, offset, 4, copy);

		if (ports) {
			p->sport = bpf_ntohs(ports[0]);
			p->dport = bpf_ntohs(ports[1]);
			has |= NC_HAS_PORTS;
		}
	}
	if (wanted & NC_WANT(FLAGS) && proto == NC_PROTO_TCP && offset + 14 <= end) {
		const __u8 *flags = nc_bytes(frame, offset + 13, 1, copy);

		if (flags) {
			p->flags = *flags;
			has |= NC_HAS_FLAGS;
		}
	}
	if (wanted & (NC_WANT(ICMP_TYPE) | NC_WANT(ICMP_CODE)) && proto == icmp_proto &&
	    offset + 2 <= end) {
		const __u8 *icmp = nc_bytes(frame, offset, 2, copy);

		if (icmp) {
			p->icmp_type = icmp[0];
			p->icmp_code = icmp[1];
			has |= NC_HAS_ICMP;
		}
	}
	/* A simulation is told. */
	if (wanted & NC_WANT(SOCKET) && !simulate && has & (NC_HAS_PORTS | NC_HAS_ICMP))
		p->socket = nc_find_socket(frame->ctx, p, offset, end);
	if (wanted & NC_WANT_CT && !simulate && has & (NC_HAS_PORTS | NC_HAS_ICMP))
		has |= nc_track(frame->ctx, p, offset, end);
	return has;
}

/* The fields of transport headers. */
#define NC_PART_TRANSPORT (NC_HAS_PORTS | NC_HAS_FLAGS | NC_HAS_ICMP)
#define NC_KEY_TRANSPORT(NAME, name, text, kind, part, ...)                                        \
	| ((part)&NC_PART_TRANSPORT ? NC_WANT(NAME) : 0)
#define NC_WANT_TRANSPORT (NC_WANT(SOCKET) | NC_WANT_CT NC_PACKET_KEYS(NC_KEY_TRANSPORT))

static __always_inline int nc_parse_ipv4(const struct nc_frame *frame, __u32 wanted, __u32 offset,
					 struct nc_packet *p)
{
	__u32 available = frame->length - offset, header, total, frag, proto;
	__u8 copy[sizeof(struct iphdr)] __attribute__((aligned(8)));
	const struct iphdr *ip = nc_bytes(frame, offset, sizeof(*ip), copy);
	__u8 start;

	if (!ip)
		return NC_UNPARSED_CUT;
	start = *(const __u8 *)ip;
	header = (start & 0xf) * 4;
	total = bpf_ntohs(ip->tot_len);
	if (unlikely(!total) && nc_ctx_is_super(frame->ctx))
		total = available;
	if (start >> 4 != 4 || header < sizeof(*ip))
		return NC_UNPARSED_IPV4;
	if (header > available)
		return NC_UNPARSED_CUT;
	if (total < header || total > available)
		return NC_UNPARSED_IPV4;

	p->has |= NC_HAS_IPV4 | NC_HAS_PROTO;
	if (wanted & NC_WANT(SRC))
		p->src[0] = ip->saddr;
	if (wanted & NC_WANT(DST))
		p->dst[0] = ip->daddr;
	if (wanted & NC_WANT(DSCP))
		p->dscp = ip->tos >> 2;
	if (wanted & NC_WANT(TTL))
		p->ttl = ip->ttl;
	proto = ip->protocol;
	p->proto = proto;
	if (!(wanted & (NC_WANT_TRANSPORT | NC_WANT(FRAG))))
		return NC_PARSED;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & 0x1fff) {
		p->frag = NC_FRAG_LATER;
		return NC_PARSED;
	}
	if (wanted & NC_WANT(FRAG) && frag & 0x2000)
		p->frag = nc_first_fragment(proto, NC_PROTO_ICMP, total - header);
	if (wanted & NC_WANT_TRANSPORT)
		p->has |= nc_parse_transport(frame, wanted, offset + header, offset + total, proto,
					     NC_PROTO_ICMP, p);
	return NC_PARSED;
}

static __always_inline int nc_parse_ipv6(const struct nc_frame *frame, __u32 wanted, __u32 offset,
					 struct nc_packet *p)
{
	__u8 copy[sizeof(struct ipv6hdr)] __attribute__((aligned(8)));
	const struct ipv6hdr *ip = nc_bytes(frame, offset, sizeof(*ip), copy);
	__u32 payload, transport, end, proto;
	const __u8 *start;

	if (!ip)
		return NC_UNPARSED_CUT;
	start = (const __u8 *)ip;
	payload = bpf_ntohs(ip->payload_len);
	if (unlikely(!payload) && nc_ctx_is_super(frame->ctx))
		payload = frame->length - offset - sizeof(*ip);
	transport = offset + sizeof(*ip);
	end = transport + payload;
	if (start[0] >> 4 != 6 || end > frame->length)
		return NC_UNPARSED_IPV6;

	if (wanted & NC_WANT(SRC))
		__builtin_memcpy(p->src, &ip->saddr, sizeof(p->src));
	if (wanted & NC_WANT(DST))
		__builtin_memcpy(p->dst, &ip->daddr, sizeof(p->dst));
	if (wanted & NC_WANT(DSCP))
		p->dscp = (start[0] & 0xf) << 2 | start[1] >> 6;
	if (wanted & NC_WANT(TTL))
		p->ttl = ip->hop_limit;
	proto = ip->nexthdr;
	if (unlikely(nc_is_extension(proto))) {
		/* A payload length of 0 means none, also with a jumbo option: such a packet, which no
		 * Ethernet frame can hold, has a chain that is cut. */
		__u64 found = nc_walk_extensions(frame->ctx, transport, end, proto);

		if (NC_CHAIN_FAULT(found))
			return NC_CHAIN_FAULT(found) - 1;
		transport = NC_CHAIN_OFFSET(found);
		proto = NC_CHAIN_PROTO(found);
		p->frag = NC_CHAIN_FRAG(found);
	}
	p->has |= NC_HAS_IPV6 | NC_HAS_PROTO;
	p->proto = proto;
	if (wanted & NC_WANT(FRAG) && p->frag == NC_FRAG_FIRST)
		p->frag = nc_first_fragment(proto, NC_PROTO_ICMPV6, end - transport);
	if (wanted & NC_WANT_TRANSPORT && p->frag != NC_FRAG_LATER)
		p->has |= nc_parse_transport(frame, wanted, transport, end, proto, NC_PROTO_ICMPV6,
					     p);
	return NC_PARSED;
}

/*
 * Parses the packet of `ctx`, a frame of `length` bytes. `p` is all zero on entry. Returns
 * NC_PARSED, or an enum nc_unparsed; then no rule may be asked about `p`.
 */
static __always_inline int nc_parse(nc_ctx *ctx, __u32 length, __u32 wanted, struct nc_packet *p)
{
	struct nc_frame frame = {
		.ctx = ctx,
		.data = nc_ctx_data(ctx),
		.data_end = nc_ctx_data_end(ctx),
		.length = length,
	};
	__u8 copy[sizeof(struct ethhdr)] __attribute__((aligned(8)));
	const struct ethhdr *ether;
	__u32 offset = 0, tags = 0;
	__be16 type;
	__u16 tci;
	int i;

	p->len = length;
	if (wanted & NC_WANT(MARK))
		p->mark = nc_ctx_mark(ctx);

	if (!nc_ctx_has_ether(ctx)) {
		const __u8 *start = nc_bytes(&frame, 0, 1, copy);

		if (!start)
			return NC_UNPARSED_CUT;
		return *start >> 4 == 6 ? nc_parse_ipv6(&frame, wanted, 0, p) :
					  nc_parse_ipv4(&frame, wanted, 0, p);
	}

	ether = nc_bytes(&frame, 0, sizeof(*ether), copy);
	if (!ether)
		return NC_UNPARSED_CUT;
	p->has = NC_HAS_ETHER;
	if (wanted & NC_WANT(ETHER_SRC))
		__builtin_memcpy(p->ether_src, ether->h_source, sizeof(p->ether_src));
	if (wanted & NC_WANT(ETHER_DST))
		__builtin_memcpy(p->ether_dst, ether->h_dest, sizeof(p->ether_dst));
	type = ether->h_proto;
	offset = sizeof(*ether);

	if (nc_ctx_vlan(ctx, &tci)) {
		p->has |= NC_HAS_VLAN;
		p->vlan = tci & 0xfff;
		tags = 1;
	}
#pragma unroll
	for (i = 0; i < NC_MAX_VLAN_TAGS; i++) {
		const __be16 *tag;

		if (likely(!nc_is_vlan(type)) || tags >= NC_MAX_VLAN_TAGS)
			break;
		tag = nc_bytes(&frame, offset, 4, copy);
		if (!tag)
			return NC_UNPARSED_CUT;
		if (tags == 0) {
			p->has |= NC_HAS_VLAN;
			p->vlan = bpf_ntohs(tag[0]) & 0xfff;
		}
		type = tag[1];
		offset += 4;
		tags++;
	}
	if (nc_is_vlan(type))
		return NC_UNPARSED_BOUND;

	p->ether_type = bpf_ntohs(type);
	if (likely(type == NC_ETH_IPV4))
		return nc_parse_ipv4(&frame, wanted, offset, p);
	if (type == NC_ETH_IPV6)
		return nc_parse_ipv6(&frame, wanted, offset, p);
	return NC_PARSED;
}

#endif
