// SPDX-License-Identifier: GPL-2.0-only
//
// The classifier's inputs (enum nc_input), as the table of keys has them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/rule.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::classifier {

/// How an input's value becomes a number of the packet's class: lib/crossing.h.
enum class InputForm : std::uint8_t {
    classes, ///< of the addresses: a table
    table,   ///< of 256 values at most
    blocks,  ///< of 64 values: 16 bits
    trie,    ///< of 32 or 48 bits
};

struct Input {
    std::string_view name; ///< in messages
    InputForm form{};
    std::uint64_t highest = 0; ///< value; 0 for classes, which are as many as there are
    std::uint32_t group = 0;   ///< product that it goes into when one for all would be too big
    nc_path path{};            ///< of a trie
    unsigned bits = 0;         ///< of a trie's keys
};

/// By enum nc_input.
const Input& input_info(std::uint32_t input);

/// The input, or the first of several, that a key's value goes into.
std::uint32_t input_of(Key key);
/// How many there are: more than one for numbers that are taken byte by byte.
unsigned inputs_of(Key key);

} // namespace netctl::classifier
