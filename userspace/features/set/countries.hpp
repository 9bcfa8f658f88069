// SPDX-License-Identifier: GPL-2.0-only
//
// The networks of countries, from lists of those who give networks out.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"
#include "datapath/set_text.hpp"

namespace netctl::set {

/// Codes of ISO 3166 as they are typed, "DE,fr": in upper case, at least one.
Result<std::set<std::string>> parse_countries(std::string_view text);

/// The networks of countries in a registry's list, and which of the countries it has.
struct RegistryNetworks {
    datapath::ReadElements read;
    std::set<std::string> found;
};

/**
 * Reads what registries of the internet publish of what they have given out ("delegated", also "extended"; the RIR
 * statistics exchange format, version 2):
 *
 *   registry|cc|type|start|value|date|status[|…]
 *       `value` is the number of addresses of IPv4, the length of a prefix of IPv6. What is allocated or assigned
 *       counts, and numbers of autonomous systems do not
 *   registry|*|type|*|count|summary
 *       a list with fewer or more records than these say is cut, which is an error
 *
 * `source` is the list's name for messages.
 */
RegistryNetworks read_registry(std::string_view text, std::string_view source,
                               const std::set<std::string>& countries);

/// The fewest prefixes that are the same addresses, in ascending order.
std::vector<Prefix> fewest_prefixes(std::vector<Prefix> prefixes);

} // namespace netctl::set
