// SPDX-License-Identifier: GPL-2.0-only
#include "host/top_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include <fmt/format.h>

#include "core/json.hpp"

namespace netctl::host {

namespace {

/// Under which a row is found again in the next reading.
auto key_of(const Counted& row) {
    return std::tie(row.feature, row.netns, row.place, row.rule_id, row.what);
}

std::optional<double> rate_of(std::uint64_t before, std::uint64_t now, double seconds) {
    if (now < before || seconds <= 0)
        return {};
    return static_cast<double>(now - before) / seconds;
}

std::optional<double> rate_of(const std::optional<std::uint64_t>& before,
                              const std::optional<std::uint64_t>& now, double seconds) {
    return before && now ? rate_of(*before, *now, seconds) : std::nullopt;
}

bool contains(const std::string& text, const std::string& part) {
    return strcasestr(text.c_str(), part.c_str()) != nullptr;
}

bool matches(const Counted& row, const std::string& filter) {
    return filter.empty() || contains(row.feature, filter) || contains(row.place, filter) ||
           contains(row.netns, filter) || contains(row.what, filter);
}

/// What a row is sorted by; the greatest comes first.
double weight(const TopRow& row, TopOrder order) {
    switch (order) {
    case TopOrder::rate: return row.rate.value_or(0);
    case TopOrder::bytes: return row.byte_rate.value_or(0);
    case TopOrder::total: return static_cast<double>(row.now.count);
    case TopOrder::refused: return row.refused_rate.value_or(0);
    case TopOrder::place: break;
    }
    return 0;
}

std::string scaled_or_blank(const std::optional<double>& value) {
    return value ? scaled(*value) : std::string();
}

Text place_of(const Counted& row) {
    const Text place = Text::format("{} {}", row.feature, row.place);
    return row.netns.empty() ? place : Text::format("{} (netns {})", place, row.netns);
}

Text what_of(const Counted& row) {
    return row.rule_id ? Text::format("{}: {}", *row.rule_id, row.what) : Text(row.what);
}

/// Cut or filled to so many columns.
Text fitted(const Text& text, std::size_t width) {
    Text cut = text.first_columns(width);
    return Text::format("{}{:{}}", cut, "", width - columns(cut.string()));
}

constexpr unsigned wide = 110; ///< columns

} // namespace

std::string scaled(double value) {
    constexpr double step = 1000;
    for (const char* const unit : {"", "k", "M", "G", "T"}) {
        if (value < 999.5)
            return value < 9.95 && value != std::floor(value)
                       ? fmt::format("{:.1f}{}", value, unit)
                       : fmt::format("{:.0f}{}", value, unit);
        value /= step;
    }
    return fmt::format("{:.0f}P", value);
}

void TopTable::add(AllCounted counted, double seconds) {
    std::map<decltype(key_of(std::declval<const Counted&>())), const Counted*> before;
    for (const TopRow& row : all_)
        before.emplace(key_of(row.now), &row.now);
    std::vector<TopRow> rows;
    rows.reserve(counted.rows.size());
    for (Counted& now : counted.rows) {
        TopRow row;
        if (const auto found = before.find(key_of(now)); found != before.end()) {
            const Counted& old = *found->second;
            row.rate = rate_of(old.count, now.count, seconds);
            row.byte_rate = rate_of(old.bytes, now.bytes, seconds);
            row.refused_rate = rate_of(old.refused, now.refused, seconds);
        }
        row.now = std::move(now);
        rows.push_back(std::move(row));
    }
    all_ = std::move(rows);
    unread_ = std::move(counted.unread);
}

void TopTable::arrange(TopOrder order, const std::string& filter) {
    shown_.clear();
    std::ranges::copy_if(all_, std::back_inserter(shown_),
                         [&](const TopRow& row) { return matches(row.now, filter); });
    // Those that weigh the same stay in the order of the rules.
    std::ranges::stable_sort(shown_, [&](const TopRow& a, const TopRow& b) {
        return weight(a, order) > weight(b, order);
    });
}

std::vector<Text> TopTable::render(unsigned columns, std::size_t lines, std::size_t first,
                                   TopOrder order, std::optional<std::size_t> marked) const {
    const auto title = [&](TopOrder one, const char* name) {
        return order == one ? fmt::format("*{}", name) : std::string(name);
    };
    const std::size_t place_columns = columns < wide ? 18 : 34;
    std::vector<Text> drawn;
    drawn.push_back(Text::format("  {:>6} {:>7} {:>6} {:>7}  {:{}} what",
                                 title(TopOrder::rate, "/s"), title(TopOrder::bytes, "byte/s"),
                                 title(TopOrder::total, "total"),
                                 title(TopOrder::refused, "drop/s"),
                                 title(TopOrder::place, "where"), place_columns)
                        .first_columns(columns));
    for (std::size_t at = first; at < shown_.size() && drawn.size() < lines; at++) {
        const TopRow& row = shown_[at];
        Text line = Text::format("{} {:>6} {:>7} {:>6} {:>7}  ", marked == at ? ">" : " ",
                                 scaled_or_blank(row.rate), scaled_or_blank(row.byte_rate),
                                 scaled(static_cast<double>(row.now.count)),
                                 scaled_or_blank(row.refused_rate));
        line += fitted(place_of(row.now), place_columns);
        line += Text::format(" {}", what_of(row.now));
        drawn.push_back(line.first_columns(columns));
    }
    return drawn;
}

Json top_row_json(const TopRow& row) {
    const auto number = [](const auto& value) { return value ? Json(*value) : Json(); };
    Json json{{"feature", row.now.feature}, {"place", row.now.place}, {"netns", row.now.netns}};
    json["what"] = row.now.rule_id ? Json("rule") : Json(row.now.what);
    json["rule_id"] = number(row.now.rule_id);
    json["rule_text"] = row.now.rule_id ? Json(row.now.what) : Json();
    json["count"] = row.now.count;
    json["bytes"] = number(row.now.bytes);
    json["refused"] = number(row.now.refused);
    json["per_second"] = number(row.rate);
    json["bytes_per_second"] = number(row.byte_rate);
    json["refused_per_second"] = number(row.refused_rate);
    return json;
}

Text top_row_text(const TopRow& row) {
    Text text = Text::format("{} {}: {}", place_of(row.now), what_of(row.now), row.now.count);
    if (row.now.bytes)
        text += Text::format(", {} bytes", *row.now.bytes);
    if (row.now.refused)
        text += Text::format(", {} refused", *row.now.refused);
    return text;
}

} // namespace netctl::host
