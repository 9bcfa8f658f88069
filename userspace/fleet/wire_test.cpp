// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/wire.hpp"

#include <gtest/gtest.h>

namespace netctl::fleet {

namespace {

TEST(Wire, IsWhatProtobufWrites) {
    // The examples of protobuf's page on its encoding: 150 in field 1, "testing" in field 2, the first inside field 3.
    EXPECT_EQ(WireWriter().number(1, 150).text(), "\x08\x96\x01");
    EXPECT_EQ(WireWriter().bytes(2, "testing").text(), "\x12\x07testing");
    EXPECT_EQ(WireWriter().message(3, WireWriter().number(1, 150)).text(), "\x1a\x03\x08\x96\x01");
    EXPECT_EQ(WireWriter().number(1, 0).bytes(2, "").text(), "");
    EXPECT_EQ(WireWriter().zero(6).text(), std::string("\x30\x00", 2));
}

TEST(Wire, IsReadBack) {
    const std::string text = WireWriter()
                                 .number(1, ~std::uint64_t{0})
                                 .bytes(2, "a")
                                 .bytes(2, "b")
                                 .bytes(1000, std::string(300, 'x'))
                                 .text();
    const auto message = read_wire(text);
    ASSERT_TRUE(message);
    EXPECT_EQ(message->number(1), ~std::uint64_t{0});
    EXPECT_EQ(message->all(2), (std::vector<std::string_view>{"a", "b"}));
    EXPECT_EQ(message->block(1000).size(), 300U);
    EXPECT_EQ(message->number(7), 0U);
    EXPECT_EQ(message->block(7), "");
    // Fields of fixed size are skipped.
    EXPECT_TRUE(read_wire(std::string("\x09", 1) + std::string(8, '1') + "\x15" + "1234"));
}

TEST(Wire, WhatIsCutOrNoneIsRefused) {
    const std::string text = WireWriter().number(1, 1U << 20).bytes(2, "some text").text();
    for (std::size_t size = 1; size < text.size(); size++)
        EXPECT_EQ(read_wire(std::string_view(text).substr(0, size)).has_value(), size == 4) << size;
    EXPECT_FALSE(read_wire(std::string(11, '\xff')));    // a number without end
    EXPECT_FALSE(read_wire("\x0b"));                     // a group
    EXPECT_FALSE(read_wire(std::string("\x00\x01", 2))); // field 0
    EXPECT_FALSE(read_wire("\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
                           "a")); // longer than there is
}

} // namespace
} // namespace netctl::fleet
