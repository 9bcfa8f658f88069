// SPDX-License-Identifier: GPL-2.0-only
//
// The lines of a text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

namespace netctl {

struct NumberedLine {
    std::size_t number;    ///< from 1
    std::string_view text; ///< of the whole, without its line feed
};

/// Behind a last line feed there is no further line.
inline std::vector<NumberedLine> numbered_lines(std::string_view text) {
    std::vector<NumberedLine> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        lines.push_back({lines.size() + 1, text.substr(at, end - at)});
        at = end + 1;
    }
    return lines;
}

} // namespace netctl
