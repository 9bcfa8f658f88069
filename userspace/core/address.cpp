// SPDX-License-Identifier: GPL-2.0-only
#include "core/address.hpp"

#include <arpa/inet.h>
#include <charconv>

#include <fmt/format.h>

namespace netctl {

namespace {

Address masked(Address address, unsigned length) {
    for (unsigned byte = 0; byte < address.bytes.size(); byte++) {
        const unsigned first_bit = byte * 8;
        if (first_bit >= length)
            address.bytes[byte] = 0;
        else if (first_bit + 8 > length)
            address.bytes[byte] &= static_cast<std::uint8_t>(0xff << (first_bit + 8 - length));
    }
    return address;
}

} // namespace

std::string Address::to_string() const {
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(family == Family::ipv4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
    return text;
}

Result<Address> Address::parse(std::string_view text) {
    const std::string copy(text);
    const bool whole = text.find('\0') == std::string_view::npos; // inet_pton() stops there
    Address address;
    if (whole && inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1)
        return address;
    address.family = Family::ipv6;
    if (whole && inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1)
        return address;
    return Error::usage(fmt::format("'{}' is not an IPv4 or IPv6 address", text));
}

bool Prefix::contains(const Address& other) const {
    return address.family == other.family && masked(other, length) == address;
}

std::string Prefix::to_string() const {
    if (length == address.bits())
        return address.to_string();
    return fmt::format("{}/{}", address.to_string(), length);
}

Result<Prefix> Prefix::parse(std::string_view text) {
    const auto slash = text.find('/');
    Prefix prefix{NETCTL_TRY(Address::parse(text.substr(0, slash))), 0};
    prefix.length = static_cast<std::uint8_t>(prefix.address.bits());
    if (slash == std::string_view::npos)
        return prefix;

    const auto digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, status] =
        std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (status != std::errc{} || end != digits.data() + digits.size() ||
        length > prefix.address.bits())
        return Error::usage(fmt::format("'{}' is not a prefix length; 0 to {} is allowed", digits,
                                        prefix.address.bits()));
    prefix.length = static_cast<std::uint8_t>(length);
    const Address network = masked(prefix.address, length);
    if (network != prefix.address)
        return Error::usage(fmt::format("'{}' has bits set behind its /{}", text, length),
                            fmt::format("the network is {}/{}, the address alone is {}",
                                        network.to_string(), length, prefix.address.to_string()));
    return prefix;
}

} // namespace netctl
