// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/hidden.hpp"

#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "classifier/packet.hpp"
#include "classifier/reference.hpp"
#include "testing/fuzz.hpp"
#include "testing/prog_run.hpp"

namespace netctl::classifier {
namespace {

constexpr std::size_t enough = 1'000'000;

std::vector<Rule> rules_of(Hook hook, const std::vector<std::string>& texts) {
    std::vector<Rule> rules;
    for (const std::string& text : texts) {
        auto parsed = parse_rule(text, hook);
        EXPECT_TRUE(parsed) << text << ": " << parsed.error().what;
        rules.push_back(std::move(parsed).value_or({}));
    }
    return rules;
}

HiddenRules find(const std::vector<Rule>& rules, std::size_t steps = enough,
                 const std::vector<bool>& fresh = {}) {
    std::vector<const Rule*> pointers;
    for (const Rule& rule : rules)
        pointers.push_back(&rule);
    return hidden_rules(pointers, steps, fresh);
}

std::string text_of(const HiddenRules& found) {
    std::string text;
    for (const Hidden& hidden : found.hidden)
        text += fmt::format("{}{} by {}", text.empty() ? "" : "; ", hidden.rule,
                            fmt::join(hidden.by, ","));
    return text;
}

/// Positions, as "2 by 0; 3 by 0,1".
std::string hidden(const std::vector<std::string>& texts, Hook hook = Hook::tc,
                   const std::vector<bool>& fresh = {}) {
    const HiddenRules found = find(rules_of(hook, texts), enough, fresh);
    EXPECT_EQ(found.unknown, 0U);
    return text_of(found);
}

TEST(Hidden, ByOneRule) {
    EXPECT_EQ(hidden({"src 10.0.0.0/8 pass", "src 10.1.0.0/16 drop"}), "1 by 0");
    EXPECT_EQ(hidden({"pass", "proto tcp drop", "drop"}), "1 by 0; 2 by 0");
    EXPECT_EQ(hidden({"dport 1-100 pass", "proto udp dport {22, 80} drop"}), "1 by 0");
    EXPECT_EQ(hidden({"src @bad drop", "src @bad dport 80 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"flags syn/syn,ack drop", "proto tcp flags syn/all pass"}), "1 by 0");
    EXPECT_EQ(hidden({"mark 0x100/0xff00 drop", "mark 0x123 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"mark 1/0x5 drop", "mark 3/0x7 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"mark not 5 drop", "mark not 5 dport 80 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"vlan any drop", "vlan 7 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"src not 10.0.0.0/8 drop", "src 11.0.0.1 pass"}), "1 by 0");
    EXPECT_EQ(hidden({"frag any drop", "src 10.0.0.1 frag later pass"}), "1 by 0");
    EXPECT_EQ(hidden({"dport 80 pass", "dport 443 pass", "dport 80 src ::1 drop"}), "2 by 0");
}

TEST(Hidden, ByRulesTogether) {
    EXPECT_EQ(hidden({"src 10.0.0.0/9 pass", "src 10.128.0.0/9 drop", "src 10.0.0.0/8 pass"}),
              "2 by 0,1");
    EXPECT_EQ(hidden({"dport 1-80 pass", "dport 81-200 pass", "dport 50-100 drop"}), "2 by 0,1");
    EXPECT_EQ(hidden({"src 0.0.0.0/0 drop", "src ::/0 drop", "proto tcp pass"}), "2 by 0,1");
    EXPECT_EQ(hidden({"src @s drop", "src not @s pass", "dst 10.0.0.1 drop"}), "2 by 0,1");
    EXPECT_EQ(hidden({"vlan none pass", "vlan any drop", "dport 80 pass"}), "2 by 0,1");
    EXPECT_EQ(hidden({"src 10.0.0.0/8 dport 80 pass", "dport not 80 drop",
                      "src 10.1.0.0/16 proto tcp dport 1-1000 pass"}),
              "2 by 0,1");
}

TEST(Hidden, OnlyWhatSurelyIs) {
    EXPECT_EQ(hidden({"src 10.1.0.0/16 pass", "src 10.0.0.0/8 drop"}), "");
    EXPECT_EQ(hidden({"src 0.0.0.0/0 drop", "proto tcp pass"}), "");
    EXPECT_EQ(hidden({"proto tcp dport 0-65535 pass", "proto tcp drop"}), ""); // later fragments
    EXPECT_EQ(hidden({"dport not 80 drop", "proto tcp pass"}), "");
    EXPECT_EQ(hidden({"src @a drop", "src @b pass", "dport @a pass", "dst @a pass"}), "");
    EXPECT_EQ(hidden({"mark 1/0x5 drop", "mark 4/0x6 pass"}), "");
    EXPECT_EQ(hidden({"mark not 0x101/0x303 drop", "mark 0x202/0x303 pass"}), "");
    EXPECT_EQ(hidden({"vlan not 5 drop", "dport 80 pass"}), "");
    EXPECT_EQ(hidden({"src {10.0.0.0/8, 2001:db8::/32} drop", "src {10.1.0.0/16, ::1} pass"}), "");
    EXPECT_EQ(hidden({"ether-type {ipv4, ipv6} drop", "src 10.0.0.1 pass"}), ""); // layer 3 devices
}

TEST(Hidden, InPolicies) {
    EXPECT_EQ(hidden({"dst 10.0.0.0/8 deny", "dst 10.1.0.0/16 dport 80 uid 5 allow"}, Hook::policy),
              "1 by 0");
    EXPECT_EQ(hidden({"cgroup /a deny", "cgroup /a/b uid 0 allow", "cgroup /ab allow",
                      "cgroup not /a allow", "cgroup /c deny"},
                     Hook::policy),
              "1 by 0; 4 by 3");
    EXPECT_EQ(hidden({"uid 0-99 deny", "uid 100-4294967294 deny", "gid 5 allow"}, Hook::policy),
              "2 by 0,1");
    EXPECT_EQ(hidden({"exe /x deny", "exe /y allow", "exe /x dport 80 allow"}, Hook::policy),
              "2 by 0");
    EXPECT_EQ(hidden({"exe not /x deny", "exe /y allow"}, Hook::policy), ""); // may be one file
}

TEST(Hidden, OfFreshOnesWhatIsNew) {
    const std::vector<std::string> texts{"pass", "dport 1-99 drop", "src 10.0.0.0/8 drop"};
    EXPECT_EQ(hidden(texts, Hook::tc, {false, false, false}), "");
    EXPECT_EQ(hidden(texts, Hook::tc, {false, false, true}), "2 by 0");
    EXPECT_EQ(hidden(texts, Hook::tc, {true, false, false}), "1 by 0; 2 by 0");
    EXPECT_EQ(hidden({"src 10.0.0.0/9 drop", "src 10.128.0.0/9 drop", "src 10.0.0.0/8 pass"},
                     Hook::tc, {false, true, false}),
              "2 by 0,1");
}

TEST(Hidden, AmongTenThousandPrefixesInLittleTime) {
    std::vector<std::string> texts;
    for (int i = 0; i < 10000; i++)
        texts.push_back(fmt::format("src 10.{}.{}.0/24 drop", i / 256, i % 256));
    texts.push_back("src 10.0.0.0/10 drop");
    texts.push_back("src 10.3.7.9 dport 80 pass");
    const HiddenRules found = find(rules_of(Hook::xdp, texts), 30'000);
    EXPECT_EQ(found.unknown, 0U);
    EXPECT_EQ(text_of(found), fmt::format("10001 by {}", 3 * 256 + 7));
}

TEST(Hidden, SaysHowMuchItDoesNotKnow) {
    std::vector<std::string> texts;
    for (int i = 0; i < 100; i++)
        texts.push_back(fmt::format("sport {} drop", i));
    const HiddenRules found = find(rules_of(Hook::xdp, texts), 1000);
    EXPECT_GT(found.unknown, 10U);
    EXPECT_TRUE(found.hidden.empty());
}

/// No packet is decided by a rule that is said to be hidden, and those that hide it do it without the
/// others (I7: the reference tells).
TEST(Hidden, AgreesWithTheReference) {
    std::size_t told = 0, together = 0;
    for (std::uint64_t seed = 1; seed <= 40; seed++) {
        testing::Fuzz fuzz(seed);
        std::vector<nc_packet> packets;
        while (packets.size() < 200) {
            const Parsed parsed = parse_ethernet(fuzz.frame().bytes);
            if (parsed.parsed)
                packets.push_back(parsed.packet);
        }
        const testing::TestSets sets = fuzz.sets(packets);
        const std::vector<Rule> rules = fuzz.rules(60, packets, sets);
        const HiddenRules found = find(rules);
        std::vector<bool> dead(rules.size());
        for (const Hidden& hidden : found.hidden) {
            told++;
            together += hidden.by.size() > 1;
            dead[hidden.rule] = true;
            std::vector<Rule> alone;
            for (const std::size_t earlier : hidden.by)
                alone.push_back(rules[earlier]);
            alone.push_back(rules[hidden.rule]);
            const HiddenRules again = find(alone);
            ASSERT_FALSE(again.hidden.empty()) << "seed " << seed;
            EXPECT_EQ(again.hidden.back().rule, alone.size() - 1) << "seed " << seed;
        }
        for (const nc_packet& packet : packets) {
            const auto first = first_match(rules, packet, testing::oracle(sets));
            if (first) {
                ASSERT_FALSE(dead[*first]) << "seed " << seed << ": " << to_string(rules[*first]);
            }
        }
    }
    EXPECT_GT(told, 50U);
    EXPECT_GT(together, 5U);
}

} // namespace
} // namespace netctl::classifier
