// SPDX-License-Identifier: GPL-2.0-only
//
// The reference parser and matcher against examples that were worked out by hand.
#include "classifier/reference.hpp"

#include <algorithm>
#include <gtest/gtest.h>

#include "classifier/packet.hpp"
#include "testing/examples.hpp"

namespace netctl::classifier {

namespace {

using namespace testing;

const SetOracle no_sets{};

Rule rule(std::string_view match) {
    auto parsed = parse_rule(std::string(match) + " drop", Hook::xdp);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return parsed ? *parsed : Rule{};
}

TEST(Reference, AgreesWithTheExamples) {
    for (const Example& example : examples()) {
        Bytes frame = example.packet.bytes();
        frame.resize(frame.size() + example.padding);
        const Parsed parsed = parse_ethernet(frame);
        ASSERT_TRUE(parsed.parsed) << example.why << "\n" << hex(frame);
        EXPECT_EQ(matches(rule(example.match), parsed.packet, no_sets), example.matches)
            << example.why << ": " << example.match << "\n"
            << example.packet.to_string();
    }
}

TEST(Reference, TellsWhyFramesAreNotParsed) {
    for (const Fault& fault : faults()) {
        const Parsed parsed = parse_ethernet(fault.frame);
        EXPECT_FALSE(parsed.parsed) << fault.what;
        EXPECT_EQ(parsed.reason, fault.reason) << fault.what << "\n" << hex(fault.frame);
    }
}

TEST(Reference, ReadsAllFields) {
    const Packet packet =
        Ether{.src = 0x0a0b0c0d0e0f, .dst = 0x010203040506} / Vlan{.id = 0xabc, .priority = 7} /
        Ipv4{.src = ip("192.0.2.3"), .dst = ip("198.51.100.4"), .dscp = 46, .ttl = 7} /
        Tcp{.sport = 0x1234, .dport = 0x5678, .flags = syn | ack};
    const Parsed parsed = parse_ethernet(packet.bytes());
    ASSERT_TRUE(parsed.parsed);
    const nc_packet& p = parsed.packet;
    EXPECT_EQ(p.has, __u32{NC_HAS_IPV4 | NC_HAS_PROTO | NC_HAS_PORTS | NC_HAS_FLAGS | NC_HAS_VLAN |
                           NC_HAS_ETHER});
    EXPECT_EQ(p.len, 14U + 4 + 20 + 20);
    EXPECT_EQ(p.src[0], __builtin_bswap32(0xc0000203));
    EXPECT_EQ(p.dst[0], __builtin_bswap32(0xc6336404));
    EXPECT_EQ(p.sport, 0x1234);
    EXPECT_EQ(p.dport, 0x5678);
    EXPECT_EQ(p.ether_type, 0x0800);
    EXPECT_EQ(p.vlan, 0xabc);
    EXPECT_EQ(p.proto, 6);
    EXPECT_EQ(p.flags, syn | ack);
    EXPECT_EQ(p.dscp, 46);
    EXPECT_EQ(p.ttl, 7);
    EXPECT_EQ(p.frag, NC_FRAG_NONE);
    const __u8 src[6] = {0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f}, dst[6] = {1, 2, 3, 4, 5, 6};
    EXPECT_TRUE(std::equal(src, src + 6, p.ether_src));
    EXPECT_TRUE(std::equal(dst, dst + 6, p.ether_dst));
}

TEST(Reference, ReadsIpWithoutLinkHeader) {
    const Bytes four = (Ipv4{} / Tcp{}).bytes(), six = (Ipv6{} / Udp{}).bytes();
    const Parsed parsed4 = parse_ip(four), parsed6 = parse_ip(six);
    ASSERT_TRUE(parsed4.parsed && parsed6.parsed);
    EXPECT_EQ(parsed4.packet.has, __u32{NC_HAS_IPV4 | NC_HAS_PROTO | NC_HAS_PORTS | NC_HAS_FLAGS});
    EXPECT_EQ(parsed6.packet.has, __u32{NC_HAS_IPV6 | NC_HAS_PROTO | NC_HAS_PORTS});
    EXPECT_FALSE(matches(rule("ether-type 0x800"), parsed4.packet, no_sets));
    EXPECT_EQ(parse_ip({}).reason, NC_UNPARSED_CUT);
    const Bytes neither(40, 0x55);
    EXPECT_EQ(parse_ip(neither).reason, NC_UNPARSED_IPV4);
}

TEST(Reference, FirstMatchWins) {
    const std::vector<Rule> rules{rule("dport 81"), rule("dport 80"), rule("proto tcp"), rule("")};
    const auto first = [&](const Packet& packet) {
        return first_match(rules, parse_ethernet(packet.bytes()).packet, no_sets);
    };
    EXPECT_EQ(first(Ether{} / Ipv4{} / Tcp{.dport = 80}), 1U);
    EXPECT_EQ(first(Ether{} / Ipv4{} / Tcp{.dport = 82}), 2U);
    EXPECT_EQ(first(Ether{} / Payload{20}), 3U);
    EXPECT_EQ(first_match({}, nc_packet{}, no_sets), std::nullopt);
}

TEST(Reference, AsksSets) {
    const SetOracle sets{
        [](const std::string& set, const Address& a) {
            return set == "bad" && a == ip("192.0.2.1");
        },
        [](const std::string& set, std::uint16_t port) { return set == "web" && port == 80; }};
    const auto holds = [&](std::string_view match, const Packet& packet) {
        return matches(rule(match), parse_ethernet(packet.bytes()).packet, sets);
    };
    const Packet four = Ether{} / Ipv4{} / Tcp{}, six = Ether{} / Ipv6{} / Tcp{};
    EXPECT_TRUE(holds("src @bad", four));
    EXPECT_FALSE(holds("src not @bad", four));
    EXPECT_FALSE(holds("dst @bad", four));
    EXPECT_FALSE(holds("src @bad", six));
    EXPECT_TRUE(holds("src not @bad", six)) << "a set may hold either family";
    EXPECT_FALSE(holds("src not @bad", Ether{} / Payload{20}));
    EXPECT_TRUE(holds("dport @web", six));
    EXPECT_FALSE(holds("sport @web", six));
    EXPECT_FALSE(holds("dport not @web", Ether{} / Ipv4{} / Icmp{}));
}

} // namespace

} // namespace netctl::classifier
