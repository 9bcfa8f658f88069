// SPDX-License-Identifier: GPL-2.0-only
//
// "Did you mean": the nearest of the words that would have been allowed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace netctl {

/// How many edits lead from one word to the other; an edit inserts, deletes or replaces a byte, or
/// swaps two neighbours that are not edited again (the optimal string alignment distance of
/// L. Boytsov, "Indexing methods for approximate dictionary searching", 2011).
unsigned edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, the first of equals; empty if none is near enough to have been
/// meant: one edit for words up to four letters, two up to eight, three beyond, and never as many
/// as the candidate has letters.
std::string closest(std::string_view word, const std::vector<std::string>& candidates);

/// `; did you mean 'X'?`, ready to be appended to a message; empty if nothing is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

} // namespace netctl
