/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet as the rule language sees it: the fields that rules can match, and which of them this
 * packet has. Filled by lib/parse.h in the kernel.
 */
#ifndef NETCTL_ABI_PACKET_H
#define NETCTL_ABI_PACKET_H

#include "keys.h"
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
	NC_HAS_ETHER = 1 << 7,	 /* an Ethernet header: not on L3 devices */
	NC_HAS_CT = 1 << 8,	 /* a state that is known before, or behind, connection tracking */
	NC_HAS_CT_MARK = 1 << 9, /* an entry of connection tracking */
};

/* TINY is a first fragment that ends before the fields of its transport header do that rules look at: 14
 * bytes of TCP, the ports of other protocols, type and code of ICMP (the attack of RFC 1858). */
enum nc_frag { NC_FRAG_NONE = 0, NC_FRAG_FIRST = 1, NC_FRAG_TINY = 2, NC_FRAG_LATER = 3 };

/*
 * What this host has for a packet that arrives: a TCP connection or a connected UDP socket with just these
 * addresses and ports; a listener, or a UDP socket that takes from everywhere; or, for an ICMP error, one of
 * them (of TCP: a connection) that sent the packet that it quotes.
 */
enum nc_socket {
	NC_SOCKET_NONE = 0,
	NC_SOCKET_LISTENING = 1,
	NC_SOCKET_ESTABLISHED = 2,
	NC_SOCKET_RELATED = 3,
};

/*
 * What connection tracking makes of a packet, as `ct state` of nftables has it. A packet that arrives is judged
 * before it is tracked: NEW is also one that has no entry yet.
 */
enum nc_ct {
	NC_CT_NEW = 0,
	NC_CT_ESTABLISHED = 1,
	NC_CT_RELATED = 2,
	NC_CT_INVALID = 3,
	NC_CT_UNTRACKED = 4,
};

/* The members by size, so that nothing is hidden between them. */
#define NC_MEMBER_4_ADDRESS(name) __be32 name[4];
#define NC_MEMBER_4_U32(name) __u32 name;
#define NC_MEMBER_4_MASK32(name) __u32 name;
#define NC_MEMBER_4_U16(name)
#define NC_MEMBER_4_U8(name)
#define NC_MEMBER_4_MAC(name)
#define NC_MEMBER_2_ADDRESS(name)
#define NC_MEMBER_2_U32(name)
#define NC_MEMBER_2_MASK32(name)
#define NC_MEMBER_2_U16(name) __u16 name;
#define NC_MEMBER_2_U8(name)
#define NC_MEMBER_2_MAC(name)
#define NC_MEMBER_1_ADDRESS(name)
#define NC_MEMBER_1_U32(name)
#define NC_MEMBER_1_MASK32(name)
#define NC_MEMBER_1_U16(name)
#define NC_MEMBER_1_U8(name) __u8 name;
#define NC_MEMBER_1_MAC(name) __u8 name[6];
#define NC_KEY_MEMBER_4(NAME, name, text, kind, ...) NC_MEMBER_4_##kind(name)
#define NC_KEY_MEMBER_2(NAME, name, text, kind, ...) NC_MEMBER_2_##kind(name)
#define NC_KEY_MEMBER_1(NAME, name, text, kind, ...) NC_MEMBER_1_##kind(name)
#define NC_SIZE_ADDRESS 16
#define NC_SIZE_U32 4
#define NC_SIZE_MASK32 4
#define NC_SIZE_U16 2
#define NC_SIZE_U8 1
#define NC_SIZE_MAC 6
#define NC_KEY_SIZE(NAME, name, text, kind, ...) +NC_SIZE_##kind

/*
 * One member a key (keys.h): addresses in network order, numbers in host order. `ether_type` is the one
 * behind the VLAN tags that were looked through, `vlan` the id of the outer tag, `proto` the upper-layer
 * protocol behind IPv6 extension headers, `flags` byte 13 of the TCP header, `frag` an enum nc_frag,
 * `mark` the skb's, 0 in XDP, `socket` an enum nc_socket, `ct` an enum nc_ct, and `len` that of the frame as
 * the hook sees it.
 */
struct nc_packet {
	__u32 has; /* enum nc_has */
	NC_PACKET_KEYS(NC_KEY_MEMBER_4)
	NC_PACKET_KEYS(NC_KEY_MEMBER_2)
	NC_PACKET_KEYS(NC_KEY_MEMBER_1)
	__u8 reserved[8 - (4 NC_PACKET_KEYS(NC_KEY_SIZE)) % 8];
};
NC_STATIC_ASSERT(sizeof(struct nc_packet) % 8 == 0, "nc_packet is whole words");

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
