// SPDX-License-Identifier: GPL-2.0-only
//
// Maps that belong to no program: the root's `meta` and those of sets. They are made from an
// object of their own (bpf/maps/standalone.bpf.c), so that they carry BTF and other tools can
// show their fields by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bpf/map.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// A new map after the template `name`, with room for `max_entries`.
Result<RawMap> create_standalone(const std::string& name, std::uint32_t max_entries);

/// Several of them at once.
Result<std::vector<RawMap>> create_standalone(const std::string& name, std::uint32_t max_entries,
                                              std::size_t count);

} // namespace netctl::bpf
