/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The keys of the rule language: the one table that the packet's struct, the classifier's inputs, the
 * rule parser, its help and the tests are made of. A key is an entry here, its parser (lib/parse.h), and
 * the same once more for the reference (userspace/classifier/packet.cpp).
 *
 *   KEY(NAME, name, text, kind, part, group, hooks, form, max, names, value, help)
 *
 *   NAME, name  NC_FIELD_NAME and NC_INPUT_NAME; nc_packet::name and netctl::Key::name
 *   text        the key in rules
 *   kind        what the packet holds, and how the classifier takes it:
 *               ADDRESS  __be32[4]; IPv4 in [0], the rest zero
 *               U8       a number, by a table of 256
 *               U16      a number, by a table of 1024 blocks of 64
 *               U32, MAC a number of 32 bits, and __u8[6]: by a trie, for values and ranges
 *               MASK32   a number of 32 bits that is matched as VALUE/MASK: by its four bytes
 *   part        bits of enum nc_has: the key matches no packet that has none of them; 0: each has it
 *   group       product that the input goes into when one for all would be too big: 0 is the last
 *               one; fields that rules tend to name together have few different combinations
 *   hooks, form, max, names
 *               netctl::KeyInfo: hooks that have the key, how a value is written, the highest
 *               number, and the list of names in core/rule_keys.cpp
 *   value, help what is allowed, and what it looks at, as shown to the user
 *
 * New keys come last: the others keep their numbers, which are in pinned maps.
 */
#ifndef NETCTL_ABI_KEYS_H
#define NETCTL_ABI_KEYS_H

/* clang-format off */

/* What packets have. */
#define NC_PACKET_KEYS(KEY)                                                                        \
KEY(SRC, src, "src", ADDRESS, NC_HAS_IPV4 | NC_HAS_IPV6, 2,                                        \
    xdp | tc, addresses, 0, no_names,                                                              \
    "ADDRESS, ADDRESS/LENGTH, a list {A, B}, or @SET",                                             \
    "source address")                                                                              \
KEY(DST, dst, "dst", ADDRESS, NC_HAS_IPV4 | NC_HAS_IPV6, 2,                                        \
    xdp | tc | policy | redirect | to, addresses, 0, no_names,                                     \
    "ADDRESS, ADDRESS/LENGTH, a list {A, B}, or @SET",                                             \
    "destination address")                                                                         \
KEY(SPORT, sport, "sport", U16, NC_HAS_PORTS, 0,                                                   \
    xdp | tc | policy, ports, 65535, no_names,                                                     \
    "0-65535, a range A-B, a service name, a list {A, B}, or @SET",                                \
    "source port of TCP, UDP, SCTP, DCCP or UDP-Lite")                                             \
KEY(DPORT, dport, "dport", U16, NC_HAS_PORTS, 0,                                                   \
    xdp | tc | policy | redirect | to, ports, 65535, no_names,                                     \
    "0-65535, a range A-B, a service name, a list {A, B}, or @SET",                                \
    "destination port of TCP, UDP, SCTP, DCCP or UDP-Lite")                                        \
KEY(PROTO, proto, "proto", U8, NC_HAS_PROTO, 1,                                                    \
    xdp | tc | policy | to, numbers, 255, protocols,                                               \
    "tcp, udp, icmp, icmp6, sctp, dccp, udplite, igmp, gre, esp, ah, ospf, 0-255, a range A-B, "   \
    "or a list {A, B}",                                                                            \
    "upper-layer protocol")                                                                        \
KEY(FLAGS, flags, "flags", U8, NC_HAS_FLAGS, 1,                                                    \
    xdp | tc, flags, 255, flag_names,                                                              \
    "VALUE/MASK or VALUE, each of them fin,syn,rst,psh,ack,urg,ece,cwr joined by commas, none, "   \
    "all, or a number up to 0xff",                                                                 \
    "TCP flags: those in MASK are as in VALUE")                                                    \
KEY(ICMP_TYPE, icmp_type, "icmp-type", U8, NC_HAS_ICMP, 1,                                         \
    xdp | tc, icmp, 255, no_names,                                                                 \
    "0-255, a range A-B, a type's name, or a list {A, B}",                                         \
    "type of ICMP or ICMPv6")                                                                      \
KEY(ICMP_CODE, icmp_code, "icmp-code", U8, NC_HAS_ICMP, 1,                                         \
    xdp | tc, icmp, 255, no_names,                                                                 \
    "0-255, a range A-B, a code's name, or a list {A, B}",                                         \
    "code of ICMP or ICMPv6")                                                                      \
KEY(VLAN, vlan, "vlan", U16, NC_HAS_VLAN, 3,                                                       \
    xdp | tc, vlan, 4095, vlans,                                                                   \
    "0-4095, a range A-B, a list {A, B}, any, or none",                                            \
    "id of the outer VLAN tag")                                                                    \
KEY(FRAG, frag, "frag", U8, NC_HAS_PROTO, 1,                                                       \
    xdp | tc, names, frag_later, fragments,                                                        \
    "none, first, tiny, later, any, or a list {A, B}",                                             \
    "which fragment of a datagram the packet is")                                                  \
KEY(DSCP, dscp, "dscp", U8, NC_HAS_PROTO, 1,                                                       \
    xdp | tc, numbers, 63, code_points,                                                            \
    "0-63, a name (ef, af11-af43, cs0-cs7, le, va), a range A-B, or a list {A, B}",                \
    "DSCP of the IP header")                                                                       \
KEY(LEN, len, "len", U32, 0, 3,                                                                    \
    xdp | tc, numbers, 0xffffffff, no_names,                                                       \
    "bytes, a range A-B, or a list {A, B}",                                                        \
    "length of the frame with all its headers")                                                    \
KEY(ETHER_TYPE, ether_type, "ether-type", U16, NC_HAS_ETHER, 1,                                    \
    xdp | tc, hex_numbers, 0xffff, ether_types,                                                    \
    "0-0xffff, a name (ipv4, ipv6, arp, mpls, pppoe, pppoe-discovery, eapol, lldp, macsec, ptp), " \
    "a range A-B, or a list {A, B}",                                                               \
    "EtherType behind the VLAN tags")                                                              \
KEY(ETHER_SRC, ether_src, "ether-src", MAC, NC_HAS_ETHER, 3,                                       \
    xdp | tc, macs, 0xffffffffffff, no_names,                                                      \
    "a MAC address like 02:00:00:00:00:01, a range A-B, or a list {A, B}",                         \
    "source MAC address")                                                                          \
KEY(ETHER_DST, ether_dst, "ether-dst", MAC, NC_HAS_ETHER, 3,                                       \
    xdp | tc, macs, 0xffffffffffff, no_names,                                                      \
    "a MAC address like 02:00:00:00:00:01, a range A-B, or a list {A, B}",                         \
    "destination MAC address")                                                                     \
KEY(MARK, mark, "mark", MASK32, 0, 2,                                                              \
    tc, mark, 0xffffffff, no_names,                                                                \
    "NUMBER or NUMBER/MASK",                                                                       \
    "mark that the packet carries")                                                                \
KEY(TTL, ttl, "ttl", U8, NC_HAS_PROTO, 1,                                                          \
    xdp | tc, numbers, 255, no_names,                                                              \
    "0-255, a range A-B, or a list {A, B}",                                                        \
    "TTL of IPv4, hop limit of IPv6")                                                              \
KEY(SOCKET, socket, "socket", U8, NC_HAS_PROTO, 1,                                                 \
    xdp | tc, names, socket_related, sockets,                                                      \
    "established, listening, related, none, any, or a list {A, B}",                                \
    "what this host has for the packet that arrives: a connection, or a socket that takes it")     \
KEY(CT, ct, "ct", U8, NC_HAS_CT, 1,                                                                \
    xdp | tc, names, ct_untracked, ct_states,                                                      \
    "new, established, related, invalid, untracked, or a list {A, B}",                             \
    "what the kernel's connection tracking knows of the packet")                                   \
KEY(CT_MARK, ct_mark, "ct-mark", MASK32, NC_HAS_CT_MARK, 2,                                        \
    xdp | tc, mark, 0xffffffff, no_names,                                                          \
    "NUMBER or NUMBER/MASK",                                                                       \
    "mark of the packet's connection in connection tracking")

/*
 * What only connections have: NAME, name, text, and from `hooks` on as above.
 */
#define NC_CONNECTION_KEYS(KEY)                                                                    \
KEY(UID, uid, "uid",                                                                               \
    policy, users, 0xfffffffe, no_names,                                                           \
    "a user's name or number, a range A-B, or a list {A, B}",                                      \
    "user that connects")                                                                          \
KEY(GID, gid, "gid",                                                                               \
    policy, groups, 0xfffffffe, no_names,                                                          \
    "a group's name or number, a range A-B, or a list {A, B}",                                     \
    "group that connects")                                                                         \
KEY(CGROUP, cgroup, "cgroup",                                                                      \
    policy | redirect | to, path, 0, no_names,                                                     \
    "an absolute path in the cgroup hierarchy",                                                    \
    "cgroup of the process, or one above it")                                                      \
KEY(EXE, exe, "exe",                                                                               \
    policy | redirect, path, 0, no_names,                                                          \
    "an absolute path",                                                                            \
    "executable file that the process runs")

/* clang-format on */

/* Bit masks of fields, and of the classifier's inputs, have 32 and 64 bits. */
#define NC_FIELDS_MAX 32

/*
 * Fields of a packet; the same numbers as netctl::Key. `1 << NC_FIELD_…` are the bits of the
 * program's constant `wanted`: which fields the parser fetches, because some rule looks at them.
 */
#define NC_KEY_FIELD(NAME, ...) NC_FIELD_##NAME,
enum nc_field { NC_PACKET_KEYS(NC_KEY_FIELD) NC_FIELDS };
#undef NC_KEY_FIELD

#endif
