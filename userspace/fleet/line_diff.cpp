// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/line_diff.hpp"

#include <algorithm>
#include <cstdint>

namespace netctl::fleet {

namespace {

constexpr std::size_t most_cells = 16'000'000;
constexpr std::size_t shown_around = 3;

std::vector<std::string_view> lines_in(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        lines.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

struct Edit {
    char mark = ' ';
    std::string_view line;
};

} // namespace

std::vector<std::string> line_diff(std::string_view before, std::string_view after) {
    std::vector<std::string_view> a = lines_in(before), b = lines_in(after);
    std::vector<Edit> edits, tail;
    std::size_t from = 0;
    while (from < a.size() && from < b.size() && a[from] == b[from])
        edits.push_back({' ', a[from++]});
    while (a.size() > from && b.size() > from && a.back() == b.back()) {
        tail.push_back({' ', a.back()});
        a.pop_back();
        b.pop_back();
    }
    // The longest common subsequence, from its end.
    const std::size_t n = a.size() - from, m = b.size() - from;
    const bool small = n * m <= most_cells;
    std::vector<std::uint32_t> common(small ? (n + 1) * (m + 1) : 0);
    const auto at = [&](std::size_t i, std::size_t j) -> std::uint32_t& {
        return common[i * (m + 1) + j];
    };
    for (std::size_t i = n; small && i-- > 0;)
        for (std::size_t j = m; j-- > 0;)
            at(i, j) = a[from + i] == b[from + j] ? at(i + 1, j + 1) + 1
                                                  : std::max(at(i + 1, j), at(i, j + 1));
    std::size_t i = 0, j = 0;
    while (i < n || j < m) {
        if (small && i < n && j < m && a[from + i] == b[from + j]) {
            edits.push_back({' ', a[from + i]});
            i++;
            j++;
        } else if (i < n && (!small || j == m || at(i + 1, j) >= at(i, j + 1))) {
            edits.push_back({'-', a[from + i++]});
        } else {
            edits.push_back({'+', b[from + j++]});
        }
    }
    edits.insert(edits.end(), tail.rbegin(), tail.rend());

    std::vector<std::string> shown;
    std::size_t next = 0; // not decided yet
    for (std::size_t k = 0; k < edits.size(); k++) {
        if (edits[k].mark == ' ')
            continue;
        const std::size_t begin = std::max(next, k - std::min(k, shown_around));
        if (begin > next && !shown.empty())
            shown.emplace_back("…");
        const std::size_t end = std::min(edits.size(), k + shown_around + 1);
        for (std::size_t line = begin; line < end; line++) {
            // Changes behind this one are shown when it is their turn.
            if (line > k && edits[line].mark != ' ')
                break;
            shown.push_back(std::string(1, edits[line].mark) + std::string(edits[line].line));
            next = line + 1;
        }
    }
    return shown;
}

} // namespace netctl::fleet
