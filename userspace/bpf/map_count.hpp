// SPDX-License-Identifier: GPL-2.0-only
//
// How much is in a map.
#pragma once

#include <cstddef>

#include "bpf/map.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// How many keys a hash or trie of plain values has, with a call for thousands of them; about, if it changes
/// meanwhile.
Result<std::size_t> count_keys(const RawMap& map);

} // namespace netctl::bpf
