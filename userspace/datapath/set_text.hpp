// SPDX-License-Identifier: GPL-2.0-only
//
// Lists of elements as people have them, read for a set.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/result.hpp"
#include "core/rule_keys.hpp"
#include "datapath/sets.hpp"

namespace netctl::datapath {

/// Seconds, of a hundred years at most: `expires` of nc_set_value has room for these behind as many of
/// uptime as a host will see.
inline constexpr std::uint32_t longest_ttl = max_ttl;

/// A time to live: whole seconds, or a number with a unit as rules have it, `10m`; 0 is for ever.
Result<std::uint32_t> parse_ttl(std::string_view text);

/// An element as a list has it.
struct ListedElement {
    SetElement element;
    std::uint32_t ttl = 0; ///< seconds from now; 0: for ever
    bool absent = false;   ///< an exception
};

/// Sorts a list, and leaves the last of equal elements.
void sort_listed(std::vector<ListedElement>& elements);

/// What was read, and what could not be.
struct ReadElements {
    std::vector<ListedElement> elements; ///< in the order of the list
    std::size_t bad = 0;                 ///< lines, or elements of JSON
    std::vector<Error> errors; ///< of the first twenty: place, line and caret, what is wrong
};
inline constexpr std::size_t most_errors = 20;

/**
 * Reads a list by its content:
 *
 *   one element a line; `#`, `;`, and `//` in front of a word, begin comments; A-B is a range. Behind the
 *       element may stand what `netctl set list` prints there. Windows' ends of lines, a byte order mark
 *   ipset save     of one set, with timeout and nomatch
 *   JSON           of `netctl --json set list`, `nft -j list set`, CrowdSec's decisions, or an array of elements;
 *                  also one document a line, as Spamhaus has it
 *
 * Ranges become prefixes; in sets of addresses or ports their elements, up to 65,536. `source` is the list's
 * name for messages.
 */
ReadElements read_elements(SetType type, std::string_view text, std::string_view source);

} // namespace netctl::datapath
