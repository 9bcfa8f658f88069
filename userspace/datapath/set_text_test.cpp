// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/set_text.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "datapath/set_text_reader.hpp"

namespace netctl::datapath {
namespace {

/// "192.0.2.1 192.0.2.0/24+60 !2001:db8::/32": with the time to live, and exceptions marked.
std::string text_of(ReadElements read) {
    sort_listed(read.elements);
    std::string text;
    for (const ListedElement& listed : read.elements) {
        text += fmt::format("{}{}{}", text.empty() ? "" : " ", listed.absent ? "!" : "",
                            to_string(listed.element));
        if (listed.ttl != 0)
            text += fmt::format("+{}", listed.ttl);
    }
    return text;
}

std::string good(SetType type, std::string_view text) {
    const ReadElements read = read_elements(type, text, "list");
    for (const Error& error : read.errors)
        ADD_FAILURE() << error.what;
    EXPECT_EQ(read.bad, 0U);
    return text_of(read);
}

std::string bad(SetType type, std::string_view text) {
    const ReadElements read = read_elements(type, text, "list");
    EXPECT_GT(read.bad, 0U) << text_of(read);
    return read.errors.empty() ? "" : read.errors.front().what.string();
}

TEST(SetText, OneElementALine) {
    EXPECT_EQ(good(SetType::cidr, "192.0.2.0/24\n2001:db8::/32\n\n198.51.100.1"),
              "192.0.2.0/24 198.51.100.1 2001:db8::/32");
    EXPECT_EQ(
        good(SetType::cidr, "\xef\xbb\xbf# a list\r\n192.0.2.0/24\r\n ; of\r\n\t// networks\r\n"),
        "192.0.2.0/24");
    EXPECT_EQ(good(SetType::cidr, "1.10.16.0/20 ; SBL256894\n1.19.0.0/16;SBL434604\n1.2.3.4 // x"),
              "1.2.3.4 1.10.16.0/20 1.19.0.0/16");
    EXPECT_EQ(good(SetType::cidr, "192.0.2.0/24\n192.0.2.0/24 # twice\n"), "192.0.2.0/24");
    EXPECT_EQ(good(SetType::port, "80\nhttps\n8000-8002\n"), "80 443 8000 8001 8002");
    EXPECT_EQ(good(SetType::cidr, ""), "");
    EXPECT_EQ(good(SetType::cidr, "# nothing"), "");
}

TEST(SetText, Ranges) {
    EXPECT_EQ(good(SetType::cidr, "192.0.2.1-192.0.2.6"),
              "192.0.2.1 192.0.2.2/31 192.0.2.4/31 192.0.2.6");
    EXPECT_EQ(good(SetType::cidr,
                   "0.0.0.0-255.255.255.255 # all\n::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
              "0.0.0.0/0 ::/0");
    EXPECT_EQ(good(SetType::cidr, "10.0.0.0 - 10.255.255.255\n"), "10.0.0.0/8");
    EXPECT_EQ(good(SetType::host, "192.0.2.255 -192.0.3.1"), "192.0.2.255 192.0.3.0 192.0.3.1");
    EXPECT_EQ(good(SetType::host, "1::ffff-1::1:0"), "1::ffff 1::1:0");
    EXPECT_EQ(good(SetType::port, "65534-65535"), "65534 65535");
    EXPECT_EQ(read_elements(SetType::host, "10.0.0.0-10.0.255.255", "list").elements.size(),
              65536U);
    EXPECT_EQ(bad(SetType::host, "10.0.0.0-10.1.0.0"),
              "list:1: this range has more than 65536 elements\n  10.0.0.0-10.1.0.0\n  "
              "^~~~~~~~~~~~~~~~~");
    EXPECT_EQ(bad(SetType::cidr, "10.0.0.9-10.0.0.1"),
              "list:1: the range 10.0.0.9-10.0.0.1 ends before it begins\n  10.0.0.9-10.0.0.1\n"
              "  ^~~~~~~~~~~~~~~~~");
    bad(SetType::host, "1::-2::");
    bad(SetType::cidr, "10.0.0.1-::1");
    bad(SetType::port, "443-80");
    bad(SetType::port, "80-65536");
    bad(SetType::cidr, "10.0.0.1-");
    bad(SetType::cidr, "-10.0.0.1");
}

TEST(SetText, PrefixesOfARangeAreTheFewestAndNoOthers) {
    const auto number = [](const Address& address) {
        std::uint32_t sum = 0;
        for (unsigned i = 0; i < 4; i++)
            sum = sum << 8 | address.bytes[i];
        return sum;
    };
    const auto address = [](std::uint32_t value) {
        Address made;
        for (unsigned i = 0; i < 4; i++)
            made.bytes[i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
        return made;
    };
    for (std::uint32_t low = 0; low < 64; low++)
        for (std::uint32_t high = low; high < 64; high++) {
            std::uint32_t next = low;
            const auto prefixes = prefixes_of_range(address(low), address(high));
            for (const Prefix& prefix : prefixes) {
                ASSERT_EQ(number(prefix.address), next);
                next += 1U << (32 - prefix.length);
            }
            ASSERT_EQ(next, high + 1);
            // No two that follow each other are the halves of one.
            for (std::size_t i = 1; i < prefixes.size(); i++)
                ASSERT_FALSE(prefixes[i - 1].length == prefixes[i].length &&
                             Prefix({prefixes[i - 1].address,
                                     static_cast<std::uint8_t>(prefixes[i].length - 1)})
                                 .contains(prefixes[i].address) &&
                             number(prefixes[i - 1].address) % (2U << (32 - prefixes[i].length)) ==
                                 0)
                    << low << "-" << high;
        }
}

TEST(SetText, WhatSetListPrints) {
    EXPECT_EQ(good(SetType::cidr, "192.0.2.0/24\n192.0.2.1  absent\n198.51.100.7  expires in 59 s\n"
                                  "198.51.100.8  expired\n198.51.100.9  expires in 5 s  absent\n"),
              "192.0.2.0/24 !192.0.2.1 198.51.100.7+59 !198.51.100.9+5");
    EXPECT_EQ(good(SetType::cidr,
                   R"([{"element": "192.0.2.1", "expires_in": null, "absent": true},
                       {"element": "192.0.2.0/24", "expires_in": 7, "absent": false},
                       {"element": "::1", "expires_in": 0, "absent": false}])"),
              "192.0.2.0/24+7 !192.0.2.1");
    EXPECT_EQ(bad(SetType::cidr, "192.0.2.1 absnt"),
              "list:1: 'absnt' behind an element\n  192.0.2.1 absnt\n            ^~~~~");
    bad(SetType::cidr, "192.0.2.1 expires in x s");
    bad(SetType::cidr, "192.0.2.1 192.0.2.2");
}

TEST(SetText, IpsetSave) {
    EXPECT_EQ(
        good(SetType::cidr,
             "create bad hash:net family inet hashsize 1024 maxelem 65536 timeout 600 comment\n"
             "add bad 192.0.2.0/24 timeout 599 comment \"two words\" \n"
             "add bad 192.0.2.0/24 timeout 599 comment\n"
             "add bad 198.51.100.0/24 timeout 0 packets 5 bytes 300\n"
             "add bad 192.0.2.7 nomatch\n"),
        "192.0.2.0/24+599 !192.0.2.7 198.51.100.0/24");
    EXPECT_EQ(good(SetType::port, "create p bitmap:port range 0-1023\nadd p 80\nadd p 443-444\n"),
              "80 443 444");
    EXPECT_EQ(bad(SetType::cidr, "add a 192.0.2.1\nadd b 192.0.2.2"),
              "list:2: this is of another set than 'a', with which the list begins\n"
              "  add b 192.0.2.2\n      ^");
    EXPECT_EQ(
        bad(SetType::cidr, "add a 192.0.2.1,tcp:80"),
        "list:1: '192.0.2.1,tcp:80' is not an IPv4 or IPv6 address\n  add a 192.0.2.1,tcp:80\n"
        "        ^~~~~~~~~~~~~~~~");
    bad(SetType::cidr, "add a 192.0.2.1 timeout soon");
}

TEST(SetText, NftListSet) {
    EXPECT_EQ(good(SetType::cidr, R"({"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"set": {"family": "inet", "name": "bad", "table": "f", "type": "ipv4_addr", "handle": 2,
          "flags": ["interval", "timeout"], "elem": ["192.0.2.1",
            {"prefix": {"addr": "198.51.100.0", "len": 24}},
            {"range": ["203.0.113.1", "203.0.113.2"]},
            {"elem": {"val": {"prefix": {"addr": "2001:db8::", "len": 32}}, "timeout": 600, "expires": 577}},
            {"elem": {"val": "192.0.2.9", "comment": "x", "counter": {"packets": 0, "bytes": 0}}}]}}]})"),
              "192.0.2.1 192.0.2.9 198.51.100.0/24 203.0.113.1 203.0.113.2 2001:db8::/32+577");
    EXPECT_EQ(good(SetType::port,
                   R"({"nftables": [{"set": {"name": "p", "elem": [80, {"range": [90, 91]}]}}]})"),
              "80 90 91");
    EXPECT_EQ(good(SetType::cidr, R"({"nftables": [{"set": {"name": "empty"}}]})"), "");
    bad(SetType::cidr, R"({"nftables": [{"set": {"name": "a"}}, {"set": {"name": "b"}}]})");
    EXPECT_EQ(
        bad(SetType::cidr,
            R"({"nftables": [{"set": {"name": "a", "elem": [{"concat": ["192.0.2.1", 80]}]}}]})"),
        "list: element 1, {\"concat\":[\"192.0.2.1\",80]}: not an element as netctl, nft, CrowdSec "
        "or Spamhaus write it");
}

TEST(SetText, SpamhausAndCrowdSec) {
    EXPECT_EQ(good(SetType::cidr,
                   "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n"
                   "{\"cidr\":\"1.19.0.0/16\",\"sblid\":\"SBL434604\",\"rir\":\"apnic\"}\n"
                   "{\"type\":\"metadata\",\"timestamp\":1,\"records\":2}\n"),
              "1.10.16.0/20 1.19.0.0/16");
    EXPECT_EQ(good(SetType::cidr,
                   R"([{"duration":"3h59m58.5s","scope":"Ip","type":"ban","value":"192.0.2.1"},
        {"duration":"-5s","scope":"Ip","type":"ban","value":"192.0.2.2"},
        {"duration":"1m","scope":"Range","type":"ban","value":"198.51.100.0/24"}])"),
              "192.0.2.1+14398 198.51.100.0/24+60");
    EXPECT_EQ(
        good(
            SetType::host,
            R"([{"id":1,"decisions":[{"duration":"2s","scope":"Ip","type":"ban","value":"::1"}]}])"),
        "::1+2");
    bad(SetType::cidr, R"([{"scope":"Country","type":"ban","value":"XX"}])");
    bad(SetType::cidr, R"([{"scope":"Ip","type":"captcha","value":"192.0.2.1"}])");
    EXPECT_EQ(good(SetType::cidr, R"(["192.0.2.1", "192.0.2.4-192.0.2.7"])"),
              "192.0.2.1 192.0.2.4/30");
}

TEST(SetText, DurationsOfGo) {
    EXPECT_EQ(go_duration("1h2m3s"), 3723U);
    EXPECT_EQ(go_duration("300ms"), 1U);
    EXPECT_EQ(go_duration("-1h"), 0U);
    EXPECT_FALSE(go_duration("1d"));
    EXPECT_FALSE(go_duration("5"));
    EXPECT_FALSE(go_duration(""));
}

TEST(SetText, NullIsNoElements) {
    EXPECT_EQ(good(SetType::cidr, "null\n"), "");
    EXPECT_NE(bad(SetType::cidr, "null\n192.0.2.1\n").find("'null'"), std::string::npos);
}

TEST(SetText, TimesToLiveHaveBounds) {
    EXPECT_EQ(*parse_ttl("0"), 0U);
    EXPECT_EQ(*parse_ttl("3153600000"), longest_ttl);
    EXPECT_EQ(*parse_ttl("7s"), 7U);
    EXPECT_EQ(*parse_ttl("10m"), 600U);
    EXPECT_EQ(*parse_ttl("48h"), 172800U);
    EXPECT_EQ(*parse_ttl("36500d"), longest_ttl);
    for (const char* text : {"-1", "3153600001", "4294967297", "99999999999999999999", "36501d",
                             "1w", "0s", "h", "1 h", "1h30m", "1.5h", ""}) {
        ASSERT_FALSE(parse_ttl(text)) << text;
        EXPECT_EQ(parse_ttl(text).error().what, fmt::format("'{}' is no time to live", text));
    }
    // In each of the forms; one that is over is no element.
    EXPECT_EQ(good(SetType::host, "192.0.2.1  expires in 0 s\n192.0.2.2  expires in 7 s\n"),
              "192.0.2.2+7");
    EXPECT_EQ(good(SetType::host, "add s 192.0.2.1 timeout 0\n"), "192.0.2.1");
    const std::string reason = "' is no time to live";
    for (
        const char* text :
        {"192.0.2.1  expires in -1 s\n", "192.0.2.1  expires in 4294967295 s\n",
         "add s 192.0.2.1 timeout 4294967295\n", R"([{"element": "192.0.2.1", "expires_in": -1}])",
         R"([{"element": "192.0.2.1", "expires_in": 4294967295}])",
         R"({"nftables": [{"set": {"name": "s", "elem": [{"elem": {"val": "192.0.2.1", "timeout": -5}}]}}]})"})
        EXPECT_NE(bad(SetType::host, text).find(reason), std::string::npos) << text;
    EXPECT_NE(bad(SetType::host, R"([{"value": "192.0.2.1", "duration": "1000000h"}])")
                  .find("is no duration"),
              std::string::npos);
}

TEST(SetText, TellsEachBadLineUpToTwenty) {
    std::string text = "192.0.2.1\n";
    for (int i = 0; i < 30; i++)
        text += "  10.0.0.1/8 # no network\n";
    const ReadElements read = read_elements(SetType::cidr, text, "list");
    EXPECT_EQ(read.bad, 30U);
    ASSERT_EQ(read.errors.size(), most_errors);
    EXPECT_EQ(read.errors[19].what, "list:21: '10.0.0.1/8' has bits set behind its /8\n"
                                    "    10.0.0.1/8 # no network\n    ^~~~~~~~~~");
    EXPECT_NE(read.errors[0].hint.find("10.0.0.0/8"), std::string::npos);
    EXPECT_EQ(text_of(read), "192.0.2.1");
    // Of bytes that are no text the caret stands right, too.
    EXPECT_EQ(bad(SetType::cidr, "\x1b[1m\xff 192.0.2.1"),
              "list:1: '192.0.2.1' behind an element\n  \\x1b[1m\\xff 192.0.2.1\n"
              "              ^~~~~~~~~");
    EXPECT_EQ(bad(SetType::cidr, "{\"nftables\":\n [}]}"),
              "list:2: this is no JSON from here on\n   [}]}\n    ^");
    bad(SetType::cidr, "{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":\n");
    bad(SetType::cidr, "[5, null, \"x\"]");
}

TEST(SetText, OfSeveralTheLastCounts) {
    EXPECT_EQ(good(SetType::cidr, "add s 192.0.2.1 timeout 5\nadd s 192.0.2.1 timeout 9\n"),
              "192.0.2.1+9");
    EXPECT_EQ(good(SetType::cidr, "192.0.2.1\n192.0.2.0\n192.0.2.1  absent\n"),
              "192.0.2.0 !192.0.2.1");
}

} // namespace
} // namespace netctl::datapath
