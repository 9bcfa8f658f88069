// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/packet_words.hpp"

#include <gtest/gtest.h>

#include "classifier/packet.hpp"
#include "classifier/packet_text.hpp"
#include "classifier/reference.hpp"
#include "testing/packet.hpp"

namespace netctl::datapath {
namespace {

std::string read(std::string_view text, Hook hook = Hook::tc, bool ether = true) {
    const auto said = read_packet(text, hook, ether);
    return said ? classifier::packet_text(said->packet) : "error: " + said.error().what.string();
}

TEST(PacketWords, SayWhatRulesLookAt) {
    EXPECT_EQ(read("src 192.0.2.1 dst 198.51.100.1 proto tcp sport 4000 dport 22 flags syn,ack"),
              "192.0.2.1:4000 > 198.51.100.1:22 tcp syn,ack len 74");
    EXPECT_EQ(read("src 2001:db8::1 proto udp dport 53 len 100 vlan 7", Hook::xdp),
              "[2001:db8::1]:0 > [::]:53 udp vlan 7 len 100");
    EXPECT_EQ(read("proto icmp6 icmp-type echo-request"), ":: > :: icmp6 type 128 code 0 len 74");
    EXPECT_EQ(read("icmp-type 8", Hook::tc, false), "0.0.0.0 > 0.0.0.0 icmp type 8 code 0 len 60");
    EXPECT_EQ(read("src 192.0.2.1 frag later"), "192.0.2.1 > 0.0.0.0 tcp frag later len 74");
    EXPECT_EQ(read("ether-type arp ether-src 02:00:00:00:00:01"),
              "02:00:00:00:00:01 > 00:00:00:00:00:00 ether-type 0x0806 len 74");
    EXPECT_EQ(read("dport 22 socket established", Hook::xdp),
              "0.0.0.0:0 > 0.0.0.0:22 tcp syn socket established len 74");
    EXPECT_EQ(read("dport 22 ct new ct-mark 7", Hook::xdp),
              "0.0.0.0:0 > 0.0.0.0:22 tcp syn ct new ct-mark 7 len 74");
    EXPECT_EQ(read("socket related dst 2001:db8::1", Hook::xdp),
              ":: > 2001:db8::1 icmp6 type 1 code 0 socket related len 74");
    EXPECT_EQ(read("proto gre"), "0.0.0.0 > 0.0.0.0 gre len 74");
    EXPECT_EQ(read(""), "0.0.0.0:0 > 0.0.0.0:0 tcp syn len 74");
}

TEST(PacketWords, HaveOneValueEach) {
    EXPECT_EQ(read("src 10.0.0.0/8"), "error: a packet has one src, and not 'src 10.0.0.0/8'");
    EXPECT_EQ(read("dport {80, 443}"), "error: a packet has one dport, and not 'dport {80, 443}'");
    EXPECT_EQ(read("dport not 80"), "error: a packet has one dport, and not 'dport not 80'");
    EXPECT_EQ(read("src @s"), "error: a packet has one src, and not 'src @s'");
    EXPECT_NE(read("src 192.0.2.1 drop").find("error: "), std::string::npos);
    EXPECT_NE(read("dport 80 limit 5/s").find("says more than what a packet is"),
              std::string::npos);
    EXPECT_NE(read("dprt 80").find("did you mean 'dport'?"), std::string::npos);
    EXPECT_NE(read("mark 1", Hook::xdp).find("error: "), std::string::npos);
}

TEST(PacketWords, KnowWhatWasSaid) {
    const auto said = [](std::string_view text, Key key) {
        return (read_packet(text, Hook::tc, true)->said >> static_cast<unsigned>(key) & 1) != 0;
    };
    EXPECT_TRUE(said("src 192.0.2.1", Key::src));
    EXPECT_FALSE(said("src 192.0.2.1", Key::dst));
    EXPECT_FALSE(said("src 192.0.2.1 dport 22", Key::proto));
    EXPECT_TRUE(said("src 192.0.2.1 flags syn", Key::proto));
    EXPECT_TRUE(said("icmp-type 8", Key::proto));
}

/// What the parser makes of a frame's own words is the frame.
TEST(PacketWords, AgreeWithTheParser) {
    using namespace netctl::testing;
    const Packet frame = Ether{} / Vlan{.id = 9} / Ipv4{} / Tcp{};
    const nc_packet parsed = classifier::parse_ethernet(frame.bytes()).packet;
    const nc_packet said =
        read_packet("src 192.0.2.1 dst 198.51.100.1 vlan 9 proto tcp sport 1 dport 2", Hook::xdp,
                    true)
            ->packet;
    EXPECT_EQ(said.has, parsed.has);
    for (const Key key : {Key::vlan, Key::proto, Key::frag, Key::ether_type})
        EXPECT_EQ(classifier::number_of(said, key), classifier::number_of(parsed, key))
            << to_string(key);
}

TEST(PacketWords, Hex) {
    EXPECT_EQ(*read_hex("02 00:ff0a"), (std::vector<std::uint8_t>{2, 0, 255, 10}));
    EXPECT_FALSE(read_hex("0"));
    EXPECT_FALSE(read_hex("0x02"));
    EXPECT_FALSE(read_hex("g0"));
}

} // namespace
} // namespace netctl::datapath
