// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/countries.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "datapath/set_text_reader.hpp"
#include "testing/fuzz.hpp"

namespace netctl::set {
namespace {

const std::set<std::string> germany{"DE"};

std::string text_of(const std::vector<Prefix>& prefixes) {
    std::string text;
    for (const Prefix& prefix : prefixes)
        text += (text.empty() ? "" : " ") + prefix.to_string();
    return text;
}

std::vector<Prefix> networks(const datapath::ReadElements& read) {
    std::vector<Prefix> prefixes;
    for (const datapath::ListedElement& listed : read.elements)
        prefixes.push_back(std::get<Prefix>(listed.element));
    return prefixes;
}

std::string good_list(std::string_view text) {
    const RegistryNetworks registry = read_registry(text, "list", germany);
    for (const Error& error : registry.read.errors)
        ADD_FAILURE() << error.what;
    EXPECT_EQ(registry.read.bad, 0U);
    return text_of(networks(registry.read));
}

/// What is said of the first line that is wrong.
std::string bad_list(std::string_view text) {
    const RegistryNetworks registry = read_registry(text, "list", germany);
    EXPECT_GT(registry.read.bad, 0U) << text;
    if (registry.read.errors.empty())
        return "";
    const std::string what = registry.read.errors.front().what.string();
    return what.substr(0, what.find('\n'));
}

TEST(Countries, CodesAreTwoLetters) {
    EXPECT_EQ(parse_countries("DE").value(), (std::set<std::string>{"DE"}));
    EXPECT_EQ(parse_countries("fr,De,FR").value(), (std::set<std::string>{"DE", "FR"}));
    for (const char* text :
         {"", "D", "DEU", "DE,", ",DE", "DE FR", "D1", "@E", "[E", "DE,,FR", "dé"})
        EXPECT_FALSE(parse_countries(text)) << text;
}

TEST(Countries, RegistriesListNumbersOfAddresses) {
    EXPECT_EQ(good_list("2|ripencc|1|3|19830705|20231114|+0100\n"
                        "ripencc|*|ipv4|*|2|summary\n"
                        "# a comment\n\n"
                        "ripencc|DE|ipv4|192.0.2.0|256|20100910|allocated\r\n"
                        "ripencc|DE|ipv4|198.51.100.0|384|20100910|assigned|id|e-stats\n"),
              "192.0.2.0/24 198.51.100.0/24 198.51.101.0/25");
    EXPECT_EQ(good_list("a|DE|ipv6|2001:db8::|32|20100910|allocated"), "2001:db8::/32");
    EXPECT_EQ(good_list("a|DE|ipv4|255.255.255.255|1|20100910|allocated"), "255.255.255.255");
    EXPECT_EQ(good_list("a|DE|ipv4|0.0.0.0|4294967296|20100910|allocated"), "0.0.0.0/0");
    // Others' networks, and what nobody was given.
    EXPECT_EQ(good_list("a|FR|ipv4|192.0.2.0|256|20100910|allocated\n"
                        "a||ipv4|192.0.2.0|256||available\n"
                        "a|DE|ipv4|192.0.2.0|256||reserved\n"
                        "a|DE|asn|64500|1|20100910|allocated\n"),
              "");
    EXPECT_TRUE(read_registry("a|DE|ipv4|192.0.2.0|1||assigned", "", germany).found.contains("DE"));
    EXPECT_TRUE(read_registry("a|DE|asn|1|1||assigned", "", germany).found.empty());
}

TEST(Countries, WhatIsWrongInAListIsTold) {
    EXPECT_EQ(bad_list(""), "list: there is no record in it");
    EXPECT_EQ(bad_list("192.0.2.0/24\n"), "list:1: this is no line of a registry's list");
    EXPECT_EQ(bad_list("1|a|1|3|x|y|z"), "list:1: this is version '1' of such lists");
    EXPECT_EQ(bad_list("a|DE|ipv5|1|1||assigned"), "list:1: 'ipv5' is no type of a record");
    EXPECT_EQ(bad_list("a|DE|ipv4|192.0.2.0|256||given"),
              "list:1: 'given' is no status of a record");
    for (const char* count :
         {"0", "-1", "4294967297", "99999999999999999999", "x", "", "1073741313"})
        EXPECT_EQ(bad_list(fmt::format("a|DE|ipv4|192.0.2.0|{}||assigned", count)),
                  fmt::format("list:1: '{}' is no number of addresses from 192.0.2.0 on", count));
    EXPECT_EQ(bad_list("a|DE|ipv4|::1|1||assigned"), "list:1: '::1' is no IPv4 address");
    EXPECT_EQ(bad_list("a|DE|ipv6|192.0.2.0|32||assigned"),
              "list:1: '192.0.2.0' is no IPv6 address");
    EXPECT_EQ(bad_list("a|DE|ipv6|2001:db8::|129||assigned"),
              "list:1: '129' is no length of an IPv6 prefix");
    EXPECT_NE(bad_list("a|DE|ipv6|2001:db8::1|32||assigned").find("bits set"), std::string::npos);
    EXPECT_EQ(bad_list("a|*|ipv4|*|2|summary\na|FR|ipv4|192.0.2.0|1||assigned"),
              "list: it has 1 records of ipv4, and says that they are 2");
    EXPECT_EQ(bad_list("a|*|ipv6|*|x|summary\n"), "list:1: 'x' is no number of records");
}

TEST(Countries, PrefixesAreMergedToTheFewest) {
    const auto merged = [](std::initializer_list<const char*> texts) {
        std::vector<Prefix> prefixes;
        for (const char* text : texts)
            prefixes.push_back(Prefix::parse(text).value());
        return text_of(fewest_prefixes(std::move(prefixes)));
    };
    EXPECT_EQ(merged({}), "");
    EXPECT_EQ(merged({"192.0.2.128/25", "192.0.2.0/25"}), "192.0.2.0/24");
    EXPECT_EQ(merged({"192.0.2.64/26", "192.0.2.128/26"}), "192.0.2.64/26 192.0.2.128/26");
    EXPECT_EQ(merged({"192.0.2.7", "192.0.2.0/24", "192.0.2.0/24", "192.0.2.128/25"}),
              "192.0.2.0/24");
    EXPECT_EQ(merged({"0.0.0.0/1", "::/1", "128.0.0.0/1", "8000::/1"}), "0.0.0.0/0 ::/0");
    EXPECT_EQ(merged({"192.0.2.0/26", "192.0.2.64/27", "192.0.2.96/28", "192.0.2.112/29",
                      "192.0.2.120/29", "192.0.2.128/25"}),
              "192.0.2.0/24");
}

/// Addresses of 8 bits, of which each is asked.
TEST(Countries, MergedPrefixesAreTheSameAddresses) {
    testing::Fuzz fuzz(20261130);
    for (int round = 0; round < 2000 && !HasFailure(); round++) {
        std::vector<Prefix> prefixes;
        for (std::uint64_t count = fuzz.below(30); count > 0; count--) {
            Prefix prefix{{}, static_cast<std::uint8_t>(24 + fuzz.below(9))};
            prefix.address.bytes[3] =
                static_cast<std::uint8_t>(fuzz.below(256) & (0xff00 >> (prefix.length - 24)));
            prefixes.push_back(prefix);
        }
        const std::vector<Prefix> merged = fewest_prefixes(prefixes);
        std::vector<Prefix> runs; // the fewest of each run of addresses
        const auto holds = [](const std::vector<Prefix>& in, unsigned last) {
            Address address;
            address.bytes[3] = static_cast<std::uint8_t>(last);
            return std::any_of(in.begin(), in.end(),
                               [&](const Prefix& one) { return one.contains(address); });
        };
        for (unsigned first = 0; first < 256;) {
            unsigned end = first;
            while (end < 256 && holds(prefixes, end))
                end++;
            if (end > first) {
                Address low, high;
                low.bytes[3] = static_cast<std::uint8_t>(first);
                high.bytes[3] = static_cast<std::uint8_t>(end - 1);
                for (const Prefix& prefix : datapath::prefixes_of_range(low, high))
                    runs.push_back(prefix);
            }
            first = end + 1;
        }
        EXPECT_EQ(text_of(merged), text_of(runs));
    }
}

TEST(Countries, DamagedListsAreReadOrRefused) {
    const std::string whole = "2|ripencc|1700000000|7|19830705|20231114|+0100\n"
                              "ripencc|*|ipv4|*|3|summary\n"
                              "ripencc|*|ipv6|*|1|summary\n"
                              "ripencc|DE|ipv4|198.51.100.0|256|20100910|allocated|7b1a\n"
                              "ripencc|DE|ipv4|192.0.2.64|192|20100910|assigned\n"
                              "ripencc|FR|ipv4|203.0.113.0|256|20100910|allocated\n"
                              "ripencc|DE|ipv6|2001:db8:1::|48|20100910|allocated\n";
    testing::Fuzz fuzz(20261130);
    std::size_t good = 0;
    for (int round = 0; round < 20000 && !HasFailure(); round++) {
        std::string text = whole;
        fuzz.damage(text, {"\n", "-", "9", "|", "DE", " ", ",", "::"});
        const RegistryNetworks registry = read_registry(text, "list", germany);
        EXPECT_LE(registry.read.errors.size(), datapath::most_errors);
        EXPECT_EQ(registry.read.bad == 0, registry.read.errors.empty());
        EXPECT_EQ(registry.found.empty(), registry.read.elements.empty()) << text;
        for (const Prefix& prefix : networks(registry.read)) // is a prefix, with no bits behind it
            EXPECT_EQ(Prefix::parse(prefix.to_string()).value(), prefix) << text;
        good += registry.read.bad == 0;
    }
    // Most damage is seen: a letter of another country, a date, an id are not.
    EXPECT_GT(good, 20U);
    EXPECT_LT(good, 16000U);
}

} // namespace
} // namespace netctl::set
