// SPDX-License-Identifier: GPL-2.0-only
#include "core/address.hpp"

#include <gtest/gtest.h>

namespace netctl {
namespace {

TEST(Address, ReadsAndPrintsBothFamilies) {
    for (const char* text : {"0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1",
                             "::ffff:192.0.2.1", "fe80::1:2:3:4"}) {
        const Result<Address> address = Address::parse(text);
        ASSERT_TRUE(address) << text;
        EXPECT_EQ(address->to_string(), text);
    }
    EXPECT_EQ(Address::parse("2001:DB8:0:0::1")->to_string(), "2001:db8::1");
    EXPECT_EQ(Address::parse("192.0.2.1")->family, Family::ipv4);
    EXPECT_EQ(Address::parse("::ffff:192.0.2.1")->family, Family::ipv6);
}

TEST(Address, Ipv4LeavesTheOtherBytesZero) {
    const Address address = *Address::parse("192.0.2.1");
    const std::array<std::uint8_t, 16> bytes{192, 0, 2, 1};
    EXPECT_EQ(address.bytes, bytes);
}

TEST(Address, RefusesWhatIsNone) {
    for (const char* text : {"", " ", "192.0.2", "192.0.2.1.1", "192.0.2.256", "192.0.2.01x",
                             "0x7f.1", "2001:db8", "::1::", "fe80::1%eth0", "[::1]", "localhost",
                             "192.0.2.1 ", " 192.0.2.1", "192.0.2.1/32"}) {
        const Result<Address> address = Address::parse(text);
        ASSERT_FALSE(address) << text;
        EXPECT_EQ(address.error().kind, ErrorKind::usage);
        EXPECT_NE(address.error().what.find(std::string("'") + text + "'"), std::string::npos);
    }
    EXPECT_FALSE(Address::parse(std::string_view("192.0.2.1\0x", 11))) << "text behind a NUL";
}

TEST(Address, BitsCountFromTheMostSignificant) {
    const Address address = *Address::parse("128.0.0.1");
    EXPECT_TRUE(address.bit(0));
    EXPECT_FALSE(address.bit(1));
    EXPECT_FALSE(address.bit(30));
    EXPECT_TRUE(address.bit(31));
    EXPECT_EQ(address.bits(), 32u);
    EXPECT_EQ(Address::parse("::")->bits(), 128u);
}

TEST(Prefix, ReadsAndPrints) {
    for (const char* text : {"0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/24", "192.0.2.128/25",
                             "192.0.2.1", "::/0", "2001:db8::/32", "2001:db8::/33", "::1"}) {
        const Result<Prefix> prefix = Prefix::parse(text);
        ASSERT_TRUE(prefix) << text;
        EXPECT_EQ(prefix->to_string(), text);
    }
    EXPECT_EQ(Prefix::parse("192.0.2.1/32")->to_string(), "192.0.2.1");
    EXPECT_EQ(Prefix::parse("::1/128")->to_string(), "::1");
}

TEST(Prefix, BitsBehindTheLengthAreAnErrorThatNamesWhatWasMeant) {
    const Result<Prefix> prefix = Prefix::parse("10.1.2.3/8");
    ASSERT_FALSE(prefix);
    EXPECT_EQ(prefix.error().what, "'10.1.2.3/8' has bits set behind its /8");
    EXPECT_EQ(prefix.error().hint, "the network is 10.0.0.0/8, the address alone is 10.1.2.3");
    EXPECT_FALSE(Prefix::parse("192.0.2.1/31"));
    EXPECT_FALSE(Prefix::parse("2001:db8::1/127"));
    EXPECT_FALSE(Prefix::parse("192.0.2.1/0"));
}

TEST(Prefix, RefusesWrongLengths) {
    for (const char* text :
         {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "::/129", "10.0.0.0/ 8",
          "10.0.0.0/8/8", "/8", "10.0.0.0/99999999999", "10.0.0.0/255.0.0.0"})
        EXPECT_FALSE(Prefix::parse(text)) << text;
}

/// The naive truth: bit for bit.
bool covers(const Prefix& prefix, const Address& address) {
    if (prefix.address.family != address.family)
        return false;
    for (unsigned i = 0; i < prefix.length; i++)
        if (prefix.address.bit(i) != address.bit(i))
            return false;
    return true;
}

TEST(Prefix, ContainsAtEveryLengthAndBit) {
    for (const char* text : {"170.85.204.51", "2001:db8:a5a5:5a5a:ffff:0:1234:cdef"}) {
        const Address address = *Address::parse(text);
        for (unsigned length = 0; length <= address.bits(); length++) {
            Prefix prefix{address, static_cast<std::uint8_t>(length)};
            for (unsigned bit = length; bit < address.bits(); bit++)
                prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
            EXPECT_TRUE(prefix.contains(address)) << prefix.to_string();
            EXPECT_EQ(Prefix::parse(prefix.to_string())->to_string(), prefix.to_string());
            for (unsigned bit = 0; bit < address.bits(); bit++) {
                Address other = address;
                other.bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80 >> bit % 8);
                ASSERT_EQ(prefix.contains(other), covers(prefix, other))
                    << prefix.to_string() << " and " << other.to_string();
            }
        }
    }
}

TEST(Prefix, FamiliesNeverMix) {
    EXPECT_FALSE(Prefix::parse("0.0.0.0/0")->contains(*Address::parse("::")));
    EXPECT_FALSE(Prefix::parse("::/0")->contains(*Address::parse("0.0.0.0")));
    EXPECT_FALSE(Prefix::parse("::ffff:0:0/96")->contains(*Address::parse("192.0.2.1")));
}

} // namespace
} // namespace netctl
