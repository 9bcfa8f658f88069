// SPDX-License-Identifier: GPL-2.0-only
//
// How much a test does, as whoever runs it says: NETCTL_FUZZ_CASES and the like.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace netctl::testing {

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

} // namespace netctl::testing
