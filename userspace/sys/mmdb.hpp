// SPDX-License-Identifier: GPL-2.0-only
//
// Databases of addresses in MaxMind's format, by libmaxminddb.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"

namespace netctl::sys {

/// The networks that the file has for each of the countries, codes of two upper case letters: in no order, of both
/// families as far as the file has them. Read are `country.iso_code` of a record, or `country_code` or `country` as plain
/// text. What the file has a second time under other addresses (IPv4 in 6to4, Teredo and mapped) is left out. Fails if it
/// is no such file, or contradicts itself, or has nothing for one of the countries.
Result<std::vector<Prefix>> mmdb_networks(const std::string& path,
                                          const std::set<std::string>& countries);

} // namespace netctl::sys
