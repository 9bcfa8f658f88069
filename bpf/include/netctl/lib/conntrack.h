/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel's connection tracking makes of a packet (enum nc_ct). There is no table here: its entries
 * are asked for (I15), in the network namespace that the packet came into, by bpf_xdp_ct_lookup() and
 * bpf_skb_ct_lookup() of kernel 6.0 and later.
 *
 * Only programs that NC_CONNTRACK is defined for have any of this: the kernel's functions may be in a module,
 * and libbpf would look through all modules for them with each program that names them.
 *
 * A packet that arrives has not been tracked. What will become of it is known where it has an entry, where none
 * can be made of it (nf_conntrack_proto_tcp.c, _udp.c, _icmp.c and _icmpv6.c of the kernel, whose names are in
 * the comments below), and else it is new. The kernel's functions look up TCP and UDP alone: other protocols
 * have no state here. A packet that leaves has been tracked, and carries what came out.
 */
#ifndef NETCTL_LIB_CONNTRACK_H
#define NETCTL_LIB_CONNTRACK_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/packet.h>
#include <netctl/lib/frame.h>
#include <netctl/lib/socket.h>

#ifdef NC_CONNTRACK

/* Whether packets leave by the interface: tc at egress. */
const volatile __u32 leaving;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct nc_tcp_seen___nc {
	__u8 flags;
};
struct ip_ct_tcp___nc {
	struct nc_tcp_seen___nc seen[2];
	__u8 state;
	__u8 last_dir;
	__u8 last_index;
};
union nf_conntrack_proto___nc {
	struct ip_ct_tcp___nc tcp;
};
struct nf_conn___nc {
	unsigned long status;
	__u32 mark;
	union nf_conntrack_proto___nc proto;
};
struct sk_buff___nc {
	unsigned long _nfct;
};
#pragma clang attribute pop

/* net/netfilter/nf_conntrack_bpf.c; its first 12 bytes are all of it until 6.10. */
struct bpf_ct_opts___nc {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn___nc *nc_ctx_ct_lookup(nc_ctx *ctx, struct bpf_sock_tuple *tuple,
					     __u32 tuple_size, struct bpf_ct_opts___nc *options,
					     __u32 options_size) __ksym __weak;
extern void bpf_ct_release(struct nf_conn___nc *entry) __ksym __weak;

/* linux/netfilter/nf_conntrack_common.h and nf_conntrack_tcp.h */
#define NC_IPS_EXPECTED (1ul << 0)
#define NC_IPS_SEEN_REPLY (1ul << 1)
#define NC_CT_DIR_REPLY 1
#define NC_CT_TCP_TIME_WAIT 7
#define NC_CT_TCP_RST 4
#define NC_CT_TCP_CLOSE_INIT 0x04
#define NC_CT_INFO_MASK 7ul
#define NC_ENOENT (-2)

/* TCP flags that connection tracking tells packets by, of byte 13. */
#define NC_TCP_FIN 0x01
#define NC_TCP_SYN 0x02
#define NC_TCP_RST 0x04
#define NC_TCP_ACK 0x10
#define NC_TCP_URG 0x20

/* What a packet has of connection tracking, as one number: a global function returns no struct. */
#define NC_TRACKED(state, mark, has) ((__u64)(has) << 40 | (__u64)(state) << 32 | (mark))
#define NC_TRACKED_STATE(state) NC_TRACKED(state, 0, NC_HAS_CT)

/* tcp_valid_flags: combinations that there are. */
static __always_inline bool nc_tcp_flags_are_valid(__u32 flags)
{
	switch (flags & (NC_TCP_FIN | NC_TCP_SYN | NC_TCP_RST | NC_TCP_ACK | NC_TCP_URG)) {
	case NC_TCP_SYN:
	case NC_TCP_SYN | NC_TCP_URG:
	case NC_TCP_SYN | NC_TCP_ACK:
	case NC_TCP_RST:
	case NC_TCP_RST | NC_TCP_ACK:
	case NC_TCP_FIN | NC_TCP_ACK:
	case NC_TCP_FIN | NC_TCP_ACK | NC_TCP_URG:
	case NC_TCP_ACK:
	case NC_TCP_ACK | NC_TCP_URG:
		return true;
	default:
		return false;
	}
}

static __always_inline bool nc_is_first_syn(__u32 flags)
{
	return (flags & (NC_TCP_FIN | NC_TCP_SYN | NC_TCP_RST | NC_TCP_ACK)) == NC_TCP_SYN;
}

/* nf_conntrack_tcp_packet(): a SYN begins a connection anew where there was one that is over. */
static __always_inline bool nc_reopens(const struct nf_conn___nc *entry, __u32 direction)
{
	if (entry->proto.tcp.state < NC_CT_TCP_TIME_WAIT)
		return false;
	return (entry->proto.tcp.seen[0].flags | entry->proto.tcp.seen[1].flags) &
		       NC_CT_TCP_CLOSE_INIT ||
	       (entry->proto.tcp.last_dir == direction &&
		entry->proto.tcp.last_index == NC_CT_TCP_RST);
}

/* resolve_normal_ct() of `p`, or if `proto` is another one, of a packet of that protocol that it quotes. Without an
 * entry it is `without`, an enum nc_ct. */
static __always_inline __u64 nc_ct_entry(nc_ctx *ctx, const struct nc_packet *p,
					 struct bpf_sock_tuple *tuple, __u32 size, __u32 proto,
					 __u32 without)
{
	struct bpf_ct_opts___nc options = { .netns_id = BPF_F_CURRENT_NETNS, .l4proto = proto };
	struct nf_conn___nc *entry = nc_ctx_ct_lookup(ctx, tuple, size, &options, sizeof(options));
	__u32 state = NC_CT_NEW, mark = 0;
	bool reopens = false;
	unsigned long status;

	if (!entry)
		return options.error == NC_ENOENT ? NC_TRACKED_STATE(without) : 0;
	status = entry->status;
	if (bpf_core_field_exists(entry->mark))
		mark = entry->mark;
	if (proto != p->proto)
		state = NC_CT_RELATED;
	else if (proto == NC_PROTO_TCP && nc_is_first_syn(p->flags) &&
		 nc_reopens(entry, options.dir))
		reopens = true;
	else if (options.dir == NC_CT_DIR_REPLY || status & NC_IPS_SEEN_REPLY)
		state = NC_CT_ESTABLISHED;
	else if (status & NC_IPS_EXPECTED)
		state = NC_CT_RELATED;
	bpf_ct_release(entry);
	if (reopens)
		return NC_TRACKED_STATE(NC_CT_NEW);
	return NC_TRACKED(state, mark, NC_HAS_CT | NC_HAS_CT_MARK);
}

/* icmp_pkt_to_tuple(), nf_conntrack_icmp_packet(), nf_conntrack_icmpv4_error(), …_icmpv6_error(): the state of what is
 * no error, or nothing where only the table could tell. */
static __always_inline __u64 nc_ct_icmp(bool ipv4, __u32 type)
{
	/* echo, timestamp, information and address mask, and their replies */
	const __u32 queries4 = 1u << 0 | 1u << 8 | 0x3fu << 13;

	if (ipv4)
		return type < 32 && queries4 >> type & 1 ? 0 : NC_TRACKED_STATE(NC_CT_INVALID);
	/* multicast listeners, routers and neighbours */
	if ((type >= 130 && type <= 136) || type == 143)
		return NC_TRACKED_STATE(NC_CT_UNTRACKED);
	/* echo; redirects, which tell of addresses in their options; node information */
	if (type == 128 || type == 129 || type == 137 || type == 139 || type == 140)
		return 0;
	return NC_TRACKED_STATE(NC_CT_INVALID);
}

static __always_inline bool nc_ct_is_error(bool ipv4, __u32 type)
{
	/* source quench and redirect as well */
	const __u32 errors4 = 1u << 3 | 1u << 4 | 1u << 5 | 1u << 11 | 1u << 12;

	return ipv4 ? type < 32 && errors4 >> type & 1 : type < 128;
}

/* Two bytes at `offset`, as a number of network order, or -1. */
static __always_inline int nc_two_bytes(nc_ctx *ctx, __u32 offset)
{
	const __u8 *at = nc_ctx_data(ctx) + offset;
	__u8 copy[2];

	if (likely((const void *)(at + 2) <= nc_ctx_data_end(ctx)))
		return at[0] << 8 | at[1];
	return nc_ctx_load(ctx, offset, copy, sizeof(copy)) ? -1 : copy[0] << 8 | copy[1];
}

/*
 * What connection tracking has for `p`, a packet that arrives, as NC_TRACKED, or 0 if that is not known; the rest
 * as in nc_find_socket().
 */
__noinline __u64 nc_find_entry(nc_ctx *ctx, const struct nc_packet *p, __u32 offset, __u32 end)
{
	struct bpf_sock_tuple tuple = {};
	__u32 proto, without = NC_CT_NEW;
	bool ipv4;

	if (!p)
		return 0;
	ipv4 = p->has & NC_HAS_IPV4;
	proto = p->proto;
	offset &= NC_OFFSET_MASK;
	nc_opaque(offset);
	offset &= NC_OFFSET_MASK;
	if (proto == NC_PROTO_ICMP || proto == NC_PROTO_ICMPV6) {
		if (offset + 8 > end && p->frag == NC_FRAG_NONE)
			return NC_TRACKED_STATE(NC_CT_INVALID);
		if (!nc_ct_is_error(ipv4, p->icmp_type))
			return nc_ct_icmp(ipv4, p->icmp_type);
		proto = nc_read_quoted(ctx, offset + 8, end, ipv4, &tuple);
		if (!proto)
			return 0;
		/* nf_conntrack_inet_error(): it has to come to whoever sent that packet. */
		if (ipv4 ? tuple.ipv4.daddr != p->dst[0] :
			   tuple.ipv6.daddr[0] != p->dst[0] || tuple.ipv6.daddr[1] != p->dst[1] ||
				    tuple.ipv6.daddr[2] != p->dst[2] ||
				    tuple.ipv6.daddr[3] != p->dst[3])
			return NC_TRACKED_STATE(NC_CT_INVALID);
		without = NC_CT_INVALID;
	} else if (proto == NC_PROTO_TCP || proto == NC_PROTO_UDP) {
		int bytes;

		/* tcp_error(), udp_error(), for what is not put together from fragments first. */
		if (p->frag == NC_FRAG_NONE && offset + (proto == NC_PROTO_TCP ? 20 : 8) > end)
			return NC_TRACKED_STATE(NC_CT_INVALID);
		if (proto == NC_PROTO_TCP) {
			bytes = offset + 14 <= end ? nc_two_bytes(ctx, offset + 12) : -1;
			if (bytes < 0)
				return 0;
			if (bytes >> 12 < 5 ||
			    (p->frag == NC_FRAG_NONE && offset + (bytes >> 12) * 4 > end) ||
			    !nc_tcp_flags_are_valid(p->flags))
				return NC_TRACKED_STATE(NC_CT_INVALID);
			/* tcp_new(): connections begin by a SYN, or are picked up by an ACK. */
			if (p->flags & (NC_TCP_RST | NC_TCP_FIN) ||
			    (p->flags & (NC_TCP_SYN | NC_TCP_ACK)) == (NC_TCP_SYN | NC_TCP_ACK))
				without = NC_CT_INVALID;
		} else if (p->frag == NC_FRAG_NONE) {
			bytes = nc_two_bytes(ctx, offset + 4);
			if (bytes < 0)
				return 0;
			if (bytes < 8 || bytes > (int)(end - offset))
				return NC_TRACKED_STATE(NC_CT_INVALID);
		}
		if (ipv4) {
			tuple.ipv4.saddr = p->src[0];
			tuple.ipv4.daddr = p->dst[0];
			tuple.ipv4.sport = bpf_htons(p->sport);
			tuple.ipv4.dport = bpf_htons(p->dport);
		} else {
			__builtin_memcpy(tuple.ipv6.saddr, p->src, sizeof(tuple.ipv6.saddr));
			__builtin_memcpy(tuple.ipv6.daddr, p->dst, sizeof(tuple.ipv6.daddr));
			tuple.ipv6.sport = bpf_htons(p->sport);
			tuple.ipv6.dport = bpf_htons(p->dport);
		}
	} else {
		return 0;
	}
	return nc_ct_entry(ctx, p, &tuple, ipv4 ? sizeof(tuple.ipv4) : sizeof(tuple.ipv6), proto,
			   without);
}

/* Asks for a packet that arrives. Returns what it has of connection tracking, of enum nc_has. */
static __always_inline __u32 nc_track(nc_ctx *ctx, struct nc_packet *p, __u32 offset, __u32 end)
{
	__u64 tracked;

	if (leaving)
		return 0;
	tracked = nc_find_entry(ctx, p, offset, end);
	p->ct = tracked >> 32 & 0xff;
	p->ct_mark = (__u32)tracked;
	return tracked >> 40;
}

/* Reads what a packet that leaves carries: as nft_ct_get_eval() does. */
static __always_inline void nc_track_leaving(nc_ctx *ctx, struct nc_packet *p)
{
	/* enum ip_conntrack_info: the replies' are 3 and 4, and 7 is for what is not tracked */
	const __u32 states = NC_CT_ESTABLISHED << 0 | NC_CT_RELATED << 4 | NC_CT_NEW << 8 |
			     NC_CT_ESTABLISHED << 12 | NC_CT_RELATED << 16 | NC_CT_INVALID << 20 |
			     NC_CT_INVALID << 24 | NC_CT_UNTRACKED << 28;
	unsigned long carried = 0;

	if (!leaving || !(p->has & NC_HAS_PROTO) ||
	    !bpf_core_field_exists(struct sk_buff___nc, _nfct) ||
	    bpf_probe_read_kernel(&carried, sizeof(carried),
				  (void *)ctx + bpf_core_field_offset(struct sk_buff___nc, _nfct)))
		return;
	p->has |= NC_HAS_CT;
	p->ct = states >> (carried & NC_CT_INFO_MASK) * 4 & 0xf;
	if (!(carried & ~NC_CT_INFO_MASK)) {
		if (p->ct != NC_CT_UNTRACKED)
			p->ct = NC_CT_INVALID;
		return;
	}
	if (bpf_core_field_exists(struct nf_conn___nc, mark) &&
	    !bpf_probe_read_kernel(&p->ct_mark, sizeof(p->ct_mark),
				   (void *)(carried & ~NC_CT_INFO_MASK) +
					   bpf_core_field_offset(struct nf_conn___nc, mark)))
		p->has |= NC_HAS_CT_MARK;
}

#else /* what asks for nothing is the same program as if there were no such key */

static __always_inline __u32 nc_track(nc_ctx *ctx, struct nc_packet *p, __u32 offset, __u32 end)
{
	return 0;
}

static __always_inline void nc_track_leaving(nc_ctx *ctx, struct nc_packet *p)
{
}

#endif

#endif
