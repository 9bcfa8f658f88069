// SPDX-License-Identifier: GPL-2.0-only
#include "testing/examples.hpp"

namespace netctl::testing {

namespace {

constexpr bool yes = true, no = false;

/// The first `length` bytes.
Bytes cut(const Packet& packet, std::size_t length) {
    Bytes bytes = packet.bytes();
    bytes.resize(length);
    return bytes;
}

Packet tcp4() {
    return Ether{} / Ipv4{} / Tcp{};
}
Packet tcp6() {
    return Ether{} / Ipv6{} / Tcp{};
}

/// An IPv6 packet with `count` destination options headers in front of TCP.
Packet chained(int count) {
    Packet packet = Ether{} / Ipv6{};
    for (int i = 0; i < count; i++)
        packet /= Extension{};
    return packet / Tcp{};
}

std::vector<Example> make_examples() {
    const Ipv4 first4{.more_fragments = true};
    const Ipv4 later4{.dscp = 46, .fragment_offset = 1};
    const Ipv4 last4{.fragment_offset = 0x1fff};
    const Fragment6 first6{.offset = 0, .more = true};
    const Fragment6 later6{.offset = 1, .more = true};
    const Fragment6 atomic6{};
    return {
        // ---- fragments ----
        {"a later fragment never matches on ports", "dport 80", Ether{} / later4 / Tcp{}, no},
        {"... nor by leaving ports out", "dport not 81", Ether{} / later4 / Tcp{}, no},
        {"... nor on flags", "flags syn/syn", Ether{} / later4 / Tcp{}, no},
        {"... nor on ICMP type", "icmp-type 8", Ether{} / later4 / Icmp{}, no},
        {"a later fragment matches on addresses", "src 192.0.2.1 dst 198.51.100.1",
         Ether{} / later4 / Tcp{}, yes},
        {"... on proto", "proto tcp", Ether{} / later4 / Tcp{}, yes},
        {"... on dscp", "dscp 46", Ether{} / later4 / Tcp{}, yes},
        {"... on len", "len 54", Ether{} / later4 / Tcp{}, yes},
        {"... on frag", "frag later", Ether{} / later4 / Tcp{}, yes},
        {"the last fragment is a later one", "frag later", Ether{} / last4 / Tcp{}, yes},
        {"a first fragment has ports", "dport 80", Ether{} / first4 / Tcp{}, yes},
        {"... if they are in it", "dport 80",
         Ether{} / first4 / Payload{.size = 3, .fill = 0, .proto = 6}, no},
        {"a first fragment", "frag first", Ether{} / first4 / Tcp{}, yes},
        {"... is no whole packet", "frag none", Ether{} / first4 / Tcp{}, no},
        {"a first fragment is not tiny", "frag tiny", Ether{} / first4 / Tcp{}, no},
        {"... but without its TCP flags", "frag tiny",
         Ether{} / first4 / Payload{.size = 13, .fill = 0, .proto = 6}, yes},
        {"... and is a first one all the same", "frag first",
         Ether{} / first4 / Payload{.size = 13, .fill = 0, .proto = 6}, yes},
        {"... with them it is not", "frag tiny",
         Ether{} / first4 / Payload{.size = 14, .fill = 0, .proto = 6}, no},
        {"UDP needs its ports", "frag tiny",
         Ether{} / first4 / Payload{.size = 3, .fill = 0, .proto = 17}, yes},
        {"other protocols need nothing", "frag tiny",
         Ether{} / first4 / Payload{.size = 0, .fill = 0, .proto = 47}, no},
        {"a whole packet is not tiny", "frag tiny",
         Ether{} / Ipv4{} / Payload{.size = 3, .fill = 0, .proto = 6}, no},
        {"IPv6: a tiny fragment", "frag tiny",
         Ether{} / Ipv6{} / first6 / Payload{.size = 8, .fill = 0, .proto = 6}, yes},
        {"any fragment: first", "frag any", Ether{} / first4 / Tcp{}, yes},
        {"any fragment: later", "frag any", Ether{} / later4 / Tcp{}, yes},
        {"any fragment: not a whole packet", "frag any", tcp4(), no},
        {"a whole packet", "frag none", tcp4(), yes},
        {"IPv6: a later fragment has no ports", "dport 80", Ether{} / Ipv6{} / later6 / Tcp{}, no},
        {"IPv6: a later fragment", "frag later proto tcp", Ether{} / Ipv6{} / later6 / Tcp{}, yes},
        {"IPv6: a first fragment has ports", "frag first dport 80",
         Ether{} / Ipv6{} / first6 / Tcp{}, yes},
        {"an IPv6 atomic fragment is no fragment", "frag none dport 80",
         Ether{} / Ipv6{} / atomic6 / Tcp{}, yes},
        {"an atomic fragment does not undo a first one", "frag first",
         Ether{} / Ipv6{} / first6 / atomic6 / Tcp{}, yes},
        {"the upper layer of a later fragment may be unknown: proto is the header named last",
         "proto 60", Ether{} / Ipv6{} / later6 / Extension{} / Tcp{}, yes},
        {"... and not one that may follow", "proto tcp",
         Ether{} / Ipv6{} / later6 / Extension{} / Tcp{}, no},

        // ---- headers that are cut: the IP packet ends, whatever the frame holds behind ----
        {"ports need 4 bytes", "dport 0",
         Ether{} / Ipv4{} / Payload{.size = 4, .fill = 0, .proto = 17}, yes},
        {"... 3 are too few", "dport 0",
         Ether{} / Ipv4{} / Payload{.size = 3, .fill = 0, .proto = 17}, no},
        {"... padding of the frame does not count", "dport 0",
         Ether{} / Ipv4{} / Payload{.size = 3, .fill = 0, .proto = 17}, no, 40},
        {"flags need 14 bytes", "flags syn/syn",
         Ether{} / Ipv4{} / Payload{.size = 14, .fill = 2, .proto = 6}, yes},
        {"... 13 are too few", "flags syn/syn",
         Ether{} / Ipv4{} / Payload{.size = 13, .fill = 2, .proto = 6}, no, 40},
        {"... and 13 have ports", "dport 514",
         Ether{} / Ipv4{} / Payload{.size = 13, .fill = 2, .proto = 6}, yes},
        {"ICMP type needs 2 bytes", "icmp-type 8",
         Ether{} / Ipv4{} / Payload{.size = 2, .fill = 8, .proto = 1}, yes},
        {"... 1 is too few", "icmp-type 8",
         Ether{} / Ipv4{} / Payload{.size = 1, .fill = 8, .proto = 1}, no, 40},
        {"IPv6: 3 bytes are no ports", "dport 0",
         Ether{} / Ipv6{} / Payload{.size = 3, .fill = 0, .proto = 17}, no, 40},
        {"IPv6: payload length 0 is an empty packet", "proto tcp",
         Ether{} / Ipv6{.payload_length = 0} / Tcp{}, yes},
        {"... without ports", "dport 80", Ether{} / Ipv6{.payload_length = 0} / Tcp{}, no},
        {"a TCP header's own length is not looked at", "dport 0",
         Ether{} / Ipv4{} / Payload{.size = 20, .fill = 0, .proto = 6}, yes},

        // ---- outermost headers only ----
        {"IPv4 in IPv4: the outer addresses", "src 192.0.2.1",
         Ether{} / Ipv4{} / Ipv4{.src = ip("192.0.2.99")} / Tcp{}, yes},
        {"... not the inner ones", "src 192.0.2.99",
         Ether{} / Ipv4{} / Ipv4{.src = ip("192.0.2.99")} / Tcp{}, no},
        {"... nor the inner ports", "dport 80", Ether{} / Ipv4{} / Ipv4{} / Tcp{}, no},
        {"... its proto is IPv4 in IP", "proto 4", Ether{} / Ipv4{} / Ipv4{} / Tcp{}, yes},
        {"IPv6 in IPv6: no inner ports", "dport 80", Ether{} / Ipv6{} / Ipv6{} / Tcp{}, no},
        {"a packet quoted in an ICMP error gives nothing", "dport 80",
         Ether{} / Ipv4{} / Icmp{.type = 3} / Ipv4{} / Tcp{}, no},
        {"... the error itself does", "icmp-type 3",
         Ether{} / Ipv4{} / Icmp{.type = 3} / Ipv4{} / Tcp{}, yes},

        // ---- IPv4 options, IPv6 extension headers ----
        {"options are looked through", "dport 80", Ether{} / Ipv4{.option_words = 1} / Tcp{}, yes},
        {"... all ten words of them", "dport 80 flags syn/syn",
         Ether{} / Ipv4{.option_words = 10} / Tcp{}, yes},
        {"proto is behind the extension headers", "proto tcp", chained(1), yes},
        {"... not the first of them", "proto 60", chained(1), no},
        {"eight of them are looked through", "proto tcp dport 80", chained(8), yes},
        {"hop-by-hop options, routing, authentication", "dport 80",
         Ether{} / Ipv6{} / Extension{.kind = 0} / Extension{.kind = 43, .units = 2} /
             Extension{.kind = 51, .units = 1} / Tcp{},
         yes},
        {"mobility, HIP, shim6", "dport 80",
         Ether{} / Ipv6{} / Extension{.kind = 135} / Extension{.kind = 139} /
             Extension{.kind = 140} / Tcp{},
         yes},
        {"the longest extension header", "dport 80",
         Ether{} / Ipv6{} / Extension{.units = 255} / Tcp{}, yes},
        {"nothing is read behind ESP", "proto 50",
         Ether{} / Ipv6{} / Payload{.size = 40, .proto = 50}, yes},
        {"no next header is a protocol like others", "proto 59", Ether{} / Ipv6{} / Extension{},
         yes},
        {"in IPv4 the authentication header is the protocol", "proto 51",
         Ether{} / Ipv4{} / Extension{.kind = 51, .units = 1} / Tcp{}, yes},

        // ---- protocols with ports ----
        {"UDP", "proto udp dport 53", Ether{} / Ipv4{} / Udp{}, yes},
        {"SCTP", "proto sctp dport 53", Ether{} / Ipv4{} / Udp{.proto = 132}, yes},
        {"DCCP has ports", "dport 53", Ether{} / Ipv4{} / Udp{.proto = 33}, yes},
        {"UDP-Lite has ports", "dport 53", Ether{} / Ipv6{} / Udp{.proto = 136}, yes},
        {"other protocols have none", "dport 53", Ether{} / Ipv4{} / Udp{.proto = 47}, no},
        {"only TCP has flags", "flags 0/255", Ether{} / Ipv4{} / Udp{} / Payload{20}, no},
        {"flags under a mask", "flags syn/syn,ack", Ether{} / Ipv4{} / Tcp{.flags = syn | psh},
         yes},
        {"... and not", "flags syn/syn,ack", Ether{} / Ipv4{} / Tcp{.flags = syn | ack}, no},

        // ---- ICMP belongs to its family ----
        {"ICMP in IPv4", "icmp-type 8 icmp-code 0", Ether{} / Ipv4{} / Icmp{}, yes},
        {"ICMPv6 in IPv6", "icmp-type 128", Ether{} / Ipv6{} / Icmp{.type = 128, .proto = 58}, yes},
        {"ICMP in IPv6 has no type", "icmp-type 8", Ether{} / Ipv6{} / Icmp{}, no},
        {"ICMPv6 in IPv4 has no type", "icmp-type 128",
         Ether{} / Ipv4{} / Icmp{.type = 128, .proto = 58}, no},

        // ---- VLANs ----
        {"one tag is looked through", "vlan 7 dport 80", Ether{} / Vlan{7} / Ipv4{} / Tcp{}, yes},
        {"two are", "dport 80",
         Ether{} / Vlan{.id = 7, .tag_type = 0x88a8} / Vlan{8} / Ipv6{} / Tcp{}, yes},
        {"vlan is the outer tag", "vlan 7", Ether{} / Vlan{7} / Vlan{8} / Ipv4{} / Tcp{}, yes},
        {"... not the inner one", "vlan 8", Ether{} / Vlan{7} / Vlan{8} / Ipv4{} / Tcp{}, no},
        {"the priority is no part of the id", "vlan 7",
         Ether{} / Vlan{.id = 7, .priority = 7, .drop_eligible = true} / Ipv4{} / Tcp{}, yes},
        {"a priority tag is a tag", "vlan any", Ether{} / Vlan{.id = 0, .priority = 5} / Ipv4{},
         yes},
        {"no tag", "vlan none", tcp4(), yes},
        {"... is not any", "vlan any", tcp4(), no},
        {"... and not another than 7", "vlan not 7", tcp4(), no},
        {"a tag is not none", "vlan none", Ether{} / Vlan{7} / Ipv4{} / Tcp{}, no},
        {"ether-type is what is behind the tags", "ether-type 0x800",
         Ether{} / Vlan{7} / Ipv4{} / Tcp{}, yes},
        {"a service tag on something that is not IP", "vlan 9 ether-type 0x88b5",
         Ether{} / Vlan{.id = 9, .tag_type = 0x88a8} / Payload{50}, yes},

        // ---- families ----
        {"an IPv4 rule never matches IPv6", "src 0.0.0.0/0", tcp6(), no},
        {"... mapped addresses included", "src 192.0.2.1",
         Ether{} / Ipv6{.src = ip("::ffff:192.0.2.1")} / Tcp{}, no},
        {"... nor an address that starts with the same bytes", "src 32.1.13.184", tcp6(), no},
        {"... not in a list with IPv6 either", "src { 32.1.13.184, 2001:db8:ffff::/48 }", tcp6(),
         no},
        {"an IPv6 rule never matches IPv4", "src ::/0", tcp4(), no},
        {"a list of both families", "src { 10.0.0.0/8, 2001:db8::/32 }", tcp6(), yes},
        {"not X matches within its family", "src not 10.0.0.0/8", tcp4(), yes},
        {"... and only there", "src not 10.0.0.0/8", tcp6(), no},
        {"not of both families", "src not { 10.0.0.0/8, 2001:db8:ffff::/48 }", tcp6(), yes},
        {"not X does not match what has no address", "src not 10.0.0.0/8", Ether{} / Payload{50},
         no},
        {"what is not IP has no protocol", "proto not tcp", Ether{} / Payload{50}, no},
        {"... but a length", "len 64", Ether{} / Payload{50}, yes},
        {"... and Ethernet addresses", "ether-src 02:00:00:00:00:01 ether-dst 02:00:00:00:00:02",
         Ether{} / Payload{50}, yes},
        {"no IP behind a length instead of a type", "src 192.0.2.1",
         Ether{.type = 0x05dc} / Ipv4{} / Tcp{}, no},

        // ---- len ----
        {"len is the frame's, padding included", "len 94", tcp4(), yes, 40},
        {"... not the IP packet's", "len 40", tcp4(), no},
        {"len with tags", "len 58", Ether{} / Vlan{7} / Ipv4{} / Tcp{}, yes},
        {"a range", "len 54-60", tcp4(), yes},
        {"... ends included", "len 40-54", tcp4(), yes},
        {"... and no more", "len 40-53", tcp4(), no},

        {"dscp is not the whole traffic class", "dscp 46", Ether{} / Ipv6{.dscp = 46} / Tcp{}, yes},
        {"ttl of IPv4", "ttl 3", Ether{} / Ipv4{.ttl = 3} / Tcp{}, yes},
        {"... a range", "ttl 0-1", Ether{} / Ipv4{.ttl = 2} / Tcp{}, no},
        {"ttl of IPv6 is the hop limit", "ttl {1, 3}", Ether{} / Ipv6{.hop_limit = 3} / Tcp{}, yes},
        {"... also of a later fragment", "ttl 9", Ether{} / Ipv6{.hop_limit = 9} / later6 / Tcp{},
         yes},
        {"only IP has a ttl", "ttl not 3", Ether{} / Payload{10}, no},
        {"a rule without matches", "", Ether{} / Payload{10}, yes},
    };
}

std::vector<Fault> make_faults() {
    const Packet vlan3 = Ether{} / Vlan{1} / Vlan{2} / Vlan{3} / Ipv4{} / Tcp{};
    return {
        {"no room for the tag", cut(Ether{} / Vlan{1} / Ipv4{}, 17), NC_UNPARSED_CUT},
        {"no room for the second tag", cut(Ether{} / Vlan{1} / Vlan{2} / Ipv4{}, 20),
         NC_UNPARSED_CUT},
        {"no room for an IPv4 header", cut(tcp4(), 33), NC_UNPARSED_CUT},
        {"nothing but the Ethernet header", cut(tcp4(), 14), NC_UNPARSED_CUT},
        {"no room for the IPv4 options",
         cut(Ether{} / Ipv4{.option_words = 3, .total_length = 32}, 14 + 31), NC_UNPARSED_CUT},
        {"no room for an IPv6 header", cut(tcp6(), 53), NC_UNPARSED_CUT},
        {"three tags", vlan3.bytes(), NC_UNPARSED_BOUND},
        {"three tags, the last one cut", cut(vlan3, 23), NC_UNPARSED_BOUND},

        {"IPv4 of version 6", (Ether{} / Ipv4{.version = 6} / Tcp{}).bytes(), NC_UNPARSED_IPV4},
        {"IPv6 of version 4", (Ether{} / Ipv6{.version = 4} / Tcp{}).bytes(), NC_UNPARSED_IPV6},
        {"an IPv4 header of four words", (Ether{} / Ipv4{.header_words = 4} / Tcp{}).bytes(),
         NC_UNPARSED_IPV4},
        {"total length below the header's", (Ether{} / Ipv4{.total_length = 19} / Tcp{}).bytes(),
         NC_UNPARSED_IPV4},
        {"total length below that of a header with options",
         (Ether{} / Ipv4{.option_words = 2, .total_length = 27} / Tcp{}).bytes(), NC_UNPARSED_IPV4},
        {"total length of 0", (Ether{} / Ipv4{.total_length = 0} / Tcp{}).bytes(),
         NC_UNPARSED_IPV4},
        {"total length beyond the frame", (Ether{} / Ipv4{.total_length = 41} / Tcp{}).bytes(),
         NC_UNPARSED_IPV4},
        {"payload length beyond the frame", (Ether{} / Ipv6{.payload_length = 21} / Tcp{}).bytes(),
         NC_UNPARSED_IPV6},

        {"nine extension headers", chained(9).bytes(), NC_UNPARSED_BOUND},
        {"an extension header that is cut",
         (Ether{} / Ipv6{.payload_length = 7} / Extension{}).bytes(), NC_UNPARSED_CHAIN},
        {"an extension header longer than the packet",
         (Ether{} / Ipv6{} / Extension{.next = 6, .length = 3} / Tcp{}).bytes(), NC_UNPARSED_CHAIN},
        {"a fragment header that is cut",
         (Ether{} / Ipv6{.payload_length = 7} / Fragment6{} / Tcp{}).bytes(), NC_UNPARSED_CHAIN},
        {"an authentication header longer than the packet",
         (Ether{} / Ipv6{} / Extension{.kind = 51, .length = 9} / Payload{4}).bytes(),
         NC_UNPARSED_CHAIN},
        {"an extension header in a packet without payload",
         (Ether{} / Ipv6{.payload_length = 0} / Extension{} / Tcp{}).bytes(), NC_UNPARSED_CHAIN},
        {"a jumbogram",
         (Ether{} / Ipv6{.payload_length = 0} / Extension{.kind = 0} / Tcp{}).bytes(),
         NC_UNPARSED_CHAIN},
        {"hop-by-hop options that are not first",
         (Ether{} / Ipv6{} / Extension{} / Extension{.kind = 0} / Tcp{}).bytes(),
         NC_UNPARSED_CHAIN},
        {"a chain that ends in nothing", (Ether{} / Ipv6{} / Extension{.next = 60}).bytes(),
         NC_UNPARSED_CHAIN},
        {"a first fragment whose chain goes on in the next one",
         (Ether{} / Ipv6{} / Fragment6{.more = true, .next = 60}).bytes(), NC_UNPARSED_CHAIN},
    };
}

} // namespace

const std::vector<Example>& examples() {
    static const std::vector<Example> all = make_examples();
    return all;
}

const std::vector<Fault>& faults() {
    static const std::vector<Fault> all = make_faults();
    return all;
}

} // namespace netctl::testing
