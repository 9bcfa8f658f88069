// SPDX-License-Identifier: GPL-2.0-only
//
// IP addresses and prefixes of both families as values.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.hpp"

namespace netctl {

enum class Family : std::uint8_t { ipv4 = 4, ipv6 = 6 };

/// An address in network byte order; IPv4 uses the first four bytes, the others are zero.
struct Address {
    Family family = Family::ipv4;
    std::array<std::uint8_t, 16> bytes{};

    auto operator<=>(const Address&) const = default;

    unsigned bits() const { return family == Family::ipv4 ? 32 : 128; }
    /// Bit `i` counted from the most significant one.
    bool bit(unsigned i) const { return bytes[i / 8] >> (7 - i % 8) & 1; }
    std::string to_string() const;
    /// Accepts dotted quads and RFC 4291 text, nothing else. The error names the text.
    static Result<Address> parse(std::string_view text);
};

/// An address and how many of its leading bits count; bits behind them are zero.
struct Prefix {
    Address address;
    std::uint8_t length = 0;

    auto operator<=>(const Prefix&) const = default;

    bool contains(const Address& other) const;
    /// `192.0.2.0/24`; a full-length prefix prints as the bare address.
    std::string to_string() const;
    /// Accepts `ADDRESS` and `ADDRESS/LENGTH`. Bits set behind the length are an error that names
    /// the network meant, since such a typo would otherwise silently widen a rule.
    static Result<Prefix> parse(std::string_view text);
};

} // namespace netctl
