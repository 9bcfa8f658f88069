// SPDX-License-Identifier: GPL-2.0-only
//
// The compiler of the base of a cidr set: a list of prefixes as tables that lib/set_base.h looks up in a
// few loads, however many there are. abi/set_base.h tells the layout; nothing here knows of the kernel.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/address.hpp"
#include "core/result.hpp"
#include "netctl/abi/set_base.h"

namespace netctl::datapath {

/// The tables for these prefixes, all of `family`, sorted, without duplicates. No lines for no prefixes.
/// 7 to 16 bytes a prefix of IPv4, but up to 256 KiB in any case; 14 to 17 of IPv6 up to /64, 25 to 28 of a
/// longer one. Fails for more
/// than NC_BASE_MAX prefixes, and for more than NC_BASE_LENGTHS_MAX ways of nesting.
Result<std::vector<nc_base_line>> build_base(Family family, std::span<const Prefix> prefixes);

/// Whether a base is as build_base() makes one, so that what follows can be asked about it: another tool may
/// have written into it, or put one segment in the place of another.
bool is_whole_base(std::span<const nc_base_line> lines);

/// The head of a base; null if it is none.
const nc_base_head* base_head(std::span<const nc_base_line> lines);

/// The lengths, bit l for length l, of all its prefixes that cover an address; as lib/set_base.h does it.
std::array<std::uint64_t, 3> base_lengths(std::span<const nc_base_line> lines,
                                          const Address& address);

/// The prefixes that a base was made of, sorted. Empty if it is none.
std::vector<Prefix> base_elements(std::span<const nc_base_line> lines);

} // namespace netctl::datapath
