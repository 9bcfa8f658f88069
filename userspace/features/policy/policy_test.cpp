// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include "features/policy/compile.hpp"

namespace netctl::policy {
namespace {

Rule rule(const std::string& text) {
    auto parsed = parse_rule(text, Hook::policy);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return std::move(parsed).value_or({});
}

std::vector<Rule> rules(std::initializer_list<const char*> texts) {
    std::vector<Rule> rules;
    for (const char* text : texts)
        rules.push_back(rule(text));
    return rules;
}

Address address(const std::string& text) {
    const auto parsed = Address::parse(text);
    EXPECT_TRUE(parsed) << text;
    return parsed ? *parsed : Address{};
}

const ResolveExe exes = [](const std::string& path) -> std::optional<ExeId> {
    if (path == "/missing")
        return std::nullopt;
    return ExeId{1, path.size()};
};

const classifier::SetOracle no_sets{[](const std::string&, const Address&) { return false; },
                                    [](const std::string&, std::uint16_t) { return false; }};

TEST(Normalise, MakesOneAddressOfTheWaysToWriteIt) {
    EXPECT_EQ(normalise(address("::ffff:192.0.2.1")).to_string(), "192.0.2.1");
    EXPECT_EQ(normalise(address("0.0.0.0")).to_string(), "127.0.0.1");
    EXPECT_EQ(normalise(address("::ffff:0.0.0.0")).to_string(), "127.0.0.1");
    EXPECT_EQ(normalise(address("::")).to_string(), "::1");
    EXPECT_EQ(normalise(address("2001:db8::1")).to_string(), "2001:db8::1");
}

TEST(Reference, AsksEveryKey) {
    const auto list =
        rules({"dst 192.0.2.0/24 uid not 0 deny", "cgroup /a/b exe /bin/x deny",
               "sport 1-1023 proto tcp deny", "gid 5 dport 53 allow", "cgroup not /a audit"});
    const auto position = [&](auto change) {
        Connection connection;
        connection.dst = address("198.51.100.1");
        connection.proto = 6;
        connection.dport = 80;
        connection.cgroup = "/a";
        change(connection);
        const auto found = first_match(list, connection, exes, no_sets);
        return found ? static_cast<int>(*found) : -1;
    };
    EXPECT_EQ(position([](Connection&) {}), -1);
    EXPECT_EQ(position([](Connection& c) { c.dst = address("192.0.2.9"); }), -1);
    EXPECT_EQ(position([](Connection& c) { c.dst = address("192.0.2.9"), c.uid = 7; }), 0);
    EXPECT_EQ(position([](Connection& c) { c.cgroup = "/a/b/c", c.exe = {1, 6}; }), 1);
    EXPECT_EQ(position([](Connection& c) { c.cgroup = "/a/bc", c.exe = {1, 6}; }), -1);
    EXPECT_EQ(position([](Connection& c) { c.sport = 1; }), 2);
    EXPECT_EQ(position([](Connection& c) { c.gid = 5, c.dport = 53; }), 3);
    EXPECT_EQ(position([](Connection& c) { c.gid = 5, c.dport = 53, c.proto = 1; }), -1);
    EXPECT_EQ(position([](Connection& c) { c.cgroup = "/ab"; }), 4);
}

TEST(Compile, LeavesOutWhatNoRuleLooksAt) {
    const auto tables = compile(rules({"dst 192.0.2.1 deny"}), {}, exes);
    ASSERT_TRUE(tables);
    EXPECT_EQ(tables->head.asks, 1U << NC_SUBJECT_DST);
    EXPECT_NE(tables->head.lookup[NC_SUBJECT_DST].entry[1], 0U);
    EXPECT_EQ(tables->head.lookup[NC_SUBJECT_UID].entry[1], 0U);
    EXPECT_TRUE(tables->cgroups.empty());
    EXPECT_EQ(tables->head.n_exes, 0U);
}

TEST(Compile, MakesATreeOfCgroupsAndFindsExecutables) {
    const auto tables =
        compile(rules({"cgroup /a/b deny", "cgroup /a/c deny", "exe /x deny", "exe /missing deny"}),
                {}, exes);
    ASSERT_TRUE(tables);
    ASSERT_EQ(tables->cgroups.size(), 3U); // a, b, c
    EXPECT_STREQ(tables->cgroups[0].first.name, "a");
    EXPECT_EQ(tables->cgroups[2].first.parent, tables->cgroups[0].second.node);
    ASSERT_EQ(tables->head.n_exes, 1U);
    EXPECT_EQ(tables->missing_exes, (std::vector<std::string>{"/missing"}));
}

TEST(Compile, RefusesWhatTheKernelCannotCompare) {
    const auto longest = compile({{rule("cgroup /" + std::string(118, 'x') + " deny")}}, {}, exes);
    EXPECT_TRUE(longest);
    const auto too_long = compile({{rule("cgroup /" + std::string(119, 'x') + " deny")}}, {}, exes);
    ASSERT_FALSE(too_long);
    EXPECT_EQ(too_long.error().kind, ErrorKind::usage);
    std::vector<Rule> many(NC_POLICY_MAX_RULES + 1, rule("deny"));
    EXPECT_FALSE(compile(many, {}, exes));
}

TEST(Compile, TakesTenThousandRulesInLittleMemory) {
    std::vector<Rule> many;
    for (int i = 0; i < 10000; i++)
        many.push_back(rule("dst 10." + std::to_string(i >> 8) + "." + std::to_string(i & 255) +
                            ".0/24 dport " + std::to_string(1000 + i % 500) + " uid " +
                            std::to_string(i % 100) + " deny"));
    const auto tables = compile(many, {}, exes);
    ASSERT_TRUE(tables);
    EXPECT_LT(tables->words.size(), NC_SEGMENT_WORDS);
}

} // namespace
} // namespace netctl::policy
