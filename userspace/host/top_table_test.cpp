// SPDX-License-Identifier: GPL-2.0-only
#include "host/top_table.hpp"

#include <gtest/gtest.h>

namespace netctl::host {

namespace {

Counted row(const char* place, std::uint32_t id, const char* what, std::uint64_t count,
            std::uint64_t bytes) {
    Counted made{"xdp", place, "", id, what};
    made.count = count;
    made.bytes = bytes;
    made.refused = count / 2;
    return made;
}

std::vector<std::uint32_t> ids(const TopTable& table) {
    std::vector<std::uint32_t> all;
    for (const TopRow& one : table.rows())
        all.push_back(*one.now.rule_id);
    return all;
}

TEST(TopTable, RatesAreOfTheReadingBefore) {
    TopTable table;
    table.add({{row("eth0", 1, "a", 100, 1000), row("eth1", 1, "a", 7, 70)}, {}}, 0);
    table.arrange(TopOrder::place, "");
    EXPECT_FALSE(table.rows()[0].rate);
    // Another rule takes the same id, one counts anew, and one came.
    table.add(
        {{row("eth0", 1, "a", 150, 3000), row("eth1", 1, "a", 6, 60), row("eth2", 1, "a", 5, 5)},
         {}},
        2);
    table.arrange(TopOrder::place, "");
    ASSERT_EQ(table.rows().size(), 3u);
    EXPECT_EQ(table.rows()[0].rate, 25);
    EXPECT_EQ(table.rows()[0].byte_rate, 1000);
    EXPECT_EQ(table.rows()[0].refused_rate, 12.5);
    EXPECT_FALSE(table.rows()[1].rate);
    EXPECT_FALSE(table.rows()[2].rate);
    table.add({{row("eth0", 1, "b", 200, 4000)}, {}}, 1);
    table.arrange(TopOrder::place, "");
    EXPECT_FALSE(table.rows()[0].rate) << "the rule is another one";
}

TEST(TopTable, IsSortedAndFiltered) {
    TopTable table;
    table.add({{row("eth0", 1, "dport 22 pass", 0, 0), row("eth0", 2, "dport 80 pass", 0, 0),
                row("Office", 3, "drop", 0, 0), row("eth0", 4, "dport 81 pass", 0, 0)},
               {}},
              0);
    table.add({{row("eth0", 1, "dport 22 pass", 10, 900), row("eth0", 2, "dport 80 pass", 30, 100),
                row("Office", 3, "drop", 20, 5000), row("eth0", 4, "dport 81 pass", 10, 2)},
               {"set: no permission"}},
              1);
    table.arrange(TopOrder::rate, "");
    EXPECT_EQ(ids(table), (std::vector<std::uint32_t>{2, 3, 1, 4}));
    table.arrange(TopOrder::bytes, "");
    EXPECT_EQ(ids(table), (std::vector<std::uint32_t>{3, 1, 2, 4}));
    table.arrange(TopOrder::place, "");
    EXPECT_EQ(ids(table), (std::vector<std::uint32_t>{1, 2, 3, 4}));
    table.arrange(TopOrder::rate, "office");
    EXPECT_EQ(ids(table), (std::vector<std::uint32_t>{3}));
    table.arrange(TopOrder::rate, "DPORT 8");
    EXPECT_EQ(ids(table), (std::vector<std::uint32_t>{2, 4}));
    EXPECT_EQ(table.unread(), (std::vector<std::string>{"set: no permission"}));
}

TEST(TopTable, FitsTheTerminal) {
    TopTable table;
    std::vector<Counted> rows;
    for (std::uint32_t id = 0; id < 50; id++)
        rows.push_back(row("a-place-with-a-very-long-name", id,
                           "src 192.0.2.0/24 dport 1-65535 \x1b[2J drop", std::uint64_t{1} << id,
                           1));
    table.add({std::move(rows), {}}, 0);
    table.arrange(TopOrder::place, "");
    for (const unsigned wide : {20u, 60u, 80u, 200u}) {
        const auto lines = table.render(wide, 11, 40, TopOrder::total, 42);
        ASSERT_EQ(lines.size(), 11u);
        for (const Text& line : lines) {
            EXPECT_LE(columns(line.string()), wide);
            EXPECT_EQ(line.find("\x1b"), std::string::npos);
        }
        EXPECT_TRUE(lines[3].string().starts_with(">")) << lines[3];
        EXPECT_FALSE(lines[2].string().starts_with(">")) << lines[2];
    }
    EXPECT_EQ(table.render(80, 11, 45, TopOrder::total, {}).size(), 6u);
    EXPECT_NE(table.render(80, 2, 0, TopOrder::total, {})[0].find("*total"), std::string::npos);
}

TEST(TopTable, NumbersAreShort) {
    EXPECT_EQ(scaled(0), "0");
    EXPECT_EQ(scaled(0.25), "0.2");
    EXPECT_EQ(scaled(9.96), "10");
    EXPECT_EQ(scaled(999), "999");
    EXPECT_EQ(scaled(999.7), "1.0k");
    EXPECT_EQ(scaled(1234), "1.2k");
    EXPECT_EQ(scaled(340'000), "340k");
    EXPECT_EQ(scaled(5.6e6), "5.6M");
    EXPECT_EQ(scaled(2e18), "2000P");
}

} // namespace

} // namespace netctl::host
