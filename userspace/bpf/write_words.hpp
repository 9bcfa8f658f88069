// SPDX-License-Identifier: GPL-2.0-only
//
// Two words of a map changed by one system call, which nothing ends half way.
#pragma once

#include <array>
#include <cstdint>

#include "bpf/map.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// A value of an array of 64-bit words.
struct PlacedWord {
    std::uint32_t place = 0;
    std::uint64_t word = 0; ///< host order
};

/// Writes both words, or fails and has written neither; also when the process is killed. Who reads
/// sees each of them whole, the first never older than the second; between them are a few nanoseconds.
Result<> write_words(const RawMap& array, const std::array<PlacedWord, 2>& words);

} // namespace netctl::bpf
