// SPDX-License-Identifier: GPL-2.0-only
#include "core/suggest.hpp"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>

namespace netctl {

namespace {

/// Edits from one word to the other, a swap of neighbours counting as one (optimal string
/// alignment distance).
std::size_t distance(std::string_view from, std::string_view to) {
    std::vector<std::vector<std::size_t>> edits(from.size() + 1,
                                                std::vector<std::size_t>(to.size() + 1));
    for (std::size_t i = 0; i <= from.size(); i++)
        edits[i][0] = i;
    for (std::size_t j = 0; j <= to.size(); j++)
        edits[0][j] = j;
    for (std::size_t i = 1; i <= from.size(); i++)
        for (std::size_t j = 1; j <= to.size(); j++) {
            const std::size_t replace = edits[i - 1][j - 1] + (from[i - 1] != to[j - 1]);
            edits[i][j] = std::min({edits[i - 1][j] + 1, edits[i][j - 1] + 1, replace});
            if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1])
                edits[i][j] = std::min(edits[i][j], edits[i - 2][j - 2] + 1);
        }
    return edits[from.size()][to.size()];
}

} // namespace

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
    constexpr std::size_t longest = 64; // the distance's cost is the product of the lengths
    const std::string* nearest = nullptr;
    std::size_t fewest = std::max<std::size_t>(1, std::min<std::size_t>(word.size() / 3, 3)) + 1;
    for (const std::string& candidate : candidates) {
        if (word.size() > longest || candidate.size() > longest)
            continue;
        const std::size_t edits = distance(word, candidate);
        if (edits < fewest && edits < candidate.size()) {
            fewest = edits;
            nearest = &candidate;
        }
    }
    return nearest ? fmt::format("; did you mean '{}'?", *nearest) : std::string();
}

} // namespace netctl
