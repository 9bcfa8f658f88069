// SPDX-License-Identifier: GPL-2.0-only
//
// What the program does for a rule, and what it must know of a packet for that: its entry in `actions`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"
#include "netctl/abi/rule.h"

namespace netctl::datapath {

/// Gives the number by which the program knows a redirect target, or an error that says why this
/// device cannot be one. Asked once for each device.
using ResolveDevice = std::function<Result<std::uint32_t>(const std::string& device)>;

/// Bits NC_FIELD_…: what must be parsed for a rule.
std::uint32_t wanted_fields(const Rule& rule);
/// Whether a rule answers SYNs with cookies, all of them or those over its limit.
bool answers_syns(const Rule& rule);
/// Whether a rule is about connection tracking, which not every program asks.
bool asks_conntrack(const Rule& rule);
bool ask_conntrack(const std::vector<InstalledRule>& rules);
/// A rule's entry in `actions`.
Result<nc_action> encode_action(const InstalledRule& installed, const ResolveDevice& resolve);

} // namespace netctl::datapath
