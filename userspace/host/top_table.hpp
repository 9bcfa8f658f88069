// SPDX-License-Identifier: GPL-2.0-only
//
// What all hooks count, with what came a second: sorted, filtered, as lines of a terminal or as JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/output.hpp"
#include "host/counted.hpp"

namespace netctl::host {

enum class TopOrder : std::uint8_t { rate, bytes, total, refused, place };
/// As --sort has them.
inline constexpr const char* top_orders[] = {"rate", "bytes", "total", "refused", "place"};

struct TopRow {
    Counted now;
    /// A second, since the reading before; nothing for what was not there then, or counts anew.
    std::optional<double> rate{}, byte_rate{}, refused_rate{};
};

class TopTable {
  public:
    /// The next reading, `seconds` after the one before.
    void add(AllCounted counted, double seconds);

    /// What is shown: rows whose hook, place or text has `filter` in it, in any case, the most in front.
    void arrange(TopOrder order, const std::string& filter);
    const std::vector<TopRow>& rows() const { return shown_; }
    /// Those that a filter left out are not among them.
    const std::vector<std::string>& unread() const { return unread_; }

    /// The heading, and the rows from `first` on, cut to the terminal: at most `lines` in all. `marked` is the
    /// index of the row that has a mark, if any.
    std::vector<Text> render(unsigned columns, std::size_t lines, std::size_t first, TopOrder order,
                             std::optional<std::size_t> marked) const;

  private:
    std::vector<TopRow> all_, shown_;
    std::vector<std::string> unread_;
};

/// 12, 1.2k, 340k, 5.6M: at most five characters up to a thousand billions.
std::string scaled(double value);

/// A row as JSON; netctl-top(8) tells of its members.
Json top_row_json(const TopRow& row);
/// All that is known of a row, in one line.
Text top_row_text(const TopRow& row);

} // namespace netctl::host
