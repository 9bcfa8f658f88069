/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet as the rule language sees it: the fields that rules can match, and which of them this
 * packet has. Filled by lib/parse.h in the kernel.
 */
#ifndef NETCTL_ABI_PACKET_H
#define NETCTL_ABI_PACKET_H

#include "types.h"

/* Which fields a packet has. A rule on a field that is not there never matches. */
enum nc_has {
	NC_HAS_IPV4 = 1 << 0,
	NC_HAS_IPV6 = 1 << 1,
	NC_HAS_PROTO = 1 << 2, /* also dscp and frag: any parsed IP header */
	NC_HAS_PORTS = 1 << 3,
	NC_HAS_FLAGS = 1 << 4, /* TCP */
	NC_HAS_ICMP = 1 << 5,  /* ICMP in IPv4, ICMPv6 in IPv6; never crosswise */
	NC_HAS_VLAN = 1 << 6,
	NC_HAS_ETHER = 1 << 7, /* an Ethernet header: not on L3 devices */
};

enum nc_frag { NC_FRAG_NONE = 0, NC_FRAG_FIRST = 1, NC_FRAG_LATER = 2 };

struct nc_packet {
	__u32 has;     /* enum nc_has */
	__u32 len;     /* of the frame as the hook sees it, all headers included */
	__be32 src[4]; /* IPv4 in [0], the rest zero */
	__be32 dst[4];
	__u16 sport;
	__u16 dport;
	__u16 ether_type; /* behind the VLAN tags that were looked through */
	__u16 vlan;	  /* id of the outer tag, 0-4095; valid with NC_HAS_VLAN */
	__u8 proto;	  /* upper-layer protocol, behind IPv6 extension headers */
	__u8 flags;	  /* byte 13 of the TCP header */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 dscp;
	__u8 frag; /* enum nc_frag */
	__u8 ether_src[6];
	__u8 ether_dst[6];
	__u8 reserved[2];
	__u32 mark; /* of the skb; 0 in XDP */
};
NC_STATIC_ASSERT(sizeof(struct nc_packet) == 72, "nc_packet is ABI");

/* Why a packet could not be parsed; index of nc_stats::unparsed. */
enum nc_unparsed {
	NC_UNPARSED_CUT = 0,   /* a link or IP header goes beyond the frame */
	NC_UNPARSED_IPV4 = 1,  /* header length, version or total length contradict the frame */
	NC_UNPARSED_IPV6 = 2,  /* version or payload length contradict the frame */
	NC_UNPARSED_CHAIN = 3, /* a broken chain of extension headers */
	NC_UNPARSED_BOUND = 4, /* more VLAN tags or extension headers than are looked through */
	NC_UNPARSED_ENGINE =
		5, /* a table lookup out of range: a defect, counted, never passed over */
	NC_UNPARSED_REASONS = 6,
};

/* How far the walks go. */
#define NC_MAX_VLAN_TAGS 2
#define NC_MAX_EXTENSION_HEADERS 8

#endif
