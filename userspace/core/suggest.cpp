// SPDX-License-Identifier: GPL-2.0-only
#include "core/suggest.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace netctl {

unsigned edit_distance(std::string_view a, std::string_view b) {
    std::vector<unsigned> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); j++)
        last[j] = static_cast<unsigned>(j);
    for (std::size_t i = 1; i <= a.size(); i++) {
        row[0] = static_cast<unsigned>(i);
        for (std::size_t j = 1; j <= b.size(); j++) {
            const unsigned replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = std::min(row[j], before[j - 2] + 1);
        }
        before.swap(last);
        last.swap(row);
    }
    return last[b.size()];
}

std::string closest(std::string_view word, const std::vector<std::string>& candidates) {
    const std::size_t allowed = word.size() <= 4 ? 1 : word.size() <= 8 ? 2 : 3;
    std::string nearest;
    unsigned least = static_cast<unsigned>(allowed) + 1;
    for (const std::string& candidate : candidates) {
        // A difference in length alone costs as many edits; this also keeps the cost of absurdly
        // long words down.
        const std::size_t difference =
            std::max(word.size(), candidate.size()) - std::min(word.size(), candidate.size());
        if (difference >= least)
            continue;
        const unsigned distance = edit_distance(word, candidate);
        if (distance < least && distance < candidate.size()) {
            least = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
    const std::string nearest = closest(word, candidates);
    return nearest.empty() ? std::string() : fmt::format("; did you mean '{}'?", nearest);
}

} // namespace netctl
