// SPDX-License-Identifier: GPL-2.0-only
//
// The words of netfilter's tools, read as netctl's values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/rule.hpp"
#include "host/import/foreign.hpp"

namespace netctl::host {

inline constexpr std::uint16_t type_ipv4 = 0x0800, type_ipv6 = 0x86dd;

/// A decimal number, or a hexadecimal one behind `0x`, and nothing else.
std::optional<std::uint64_t> plain_number(std::string_view text);

/// `tcp`, `ipv6-icmp`, `47`.
std::optional<std::uint64_t> protocol_of(std::string_view word);

/// A type of ICMP, in the words of nft and of iptables; `protocol` is that of ICMP or of ICMPv6.
std::optional<std::uint64_t> icmp_type_of(std::string_view word, std::uint8_t protocol);
/// A code by name, with the type that it is of.
struct TypeAndCode {
    std::uint8_t type = 0, code = 0;
};
std::optional<TypeAndCode> icmp_code_of(std::string_view word, std::uint8_t protocol);

/// A value of a key of numbers: itself, or a name.
std::optional<std::uint64_t> value_of(Key key, std::string_view word, std::uint8_t icmp_protocol);

/// `syn`; 0 if there is none of that name.
std::uint32_t flag_of(std::string_view word);

/// `established`, in any case of letters; 0 if there is none of that name.
std::uint8_t state_of(std::string_view word);

/// What states are in netctl: one table, from states to values of the key.
struct StateWords {
    Key key{};
    std::uint8_t known = 0; ///< states that have a value
    std::vector<Range> (*values)(std::uint8_t states) = nullptr;
};
/// Those of a filter at this place; null: it has none there.
const StateWords* state_words(Hook hook, bool egress);

/// A range within [0, the key's highest number]; sorted by the caller.
Match ranges_match(Key key, std::vector<Range> ranges, bool negated = false);
Match prefix_match(Key key, std::vector<Prefix> prefixes, bool negated = false);
Match family_match(Family family);

/// Conditions that hold together; of several such lists, any.
using Alternatives = std::vector<std::vector<Match>>;

/// Destinations as the kernel sorts them: `local` (or `host`), `multicast`, `broadcast`, as far as packets tell that of
/// what arrives: a broadcast has that address in its frame. Empty: they do not tell.
Alternatives destinations(const std::vector<std::string>& words, bool negated);

/// A prefix, an address, or a range A-B of addresses.
std::optional<std::vector<Prefix>> prefixes_of(std::string_view text);

/// A name that a set may have, made of this one.
std::string set_name_of(std::string_view name);

} // namespace netctl::host
