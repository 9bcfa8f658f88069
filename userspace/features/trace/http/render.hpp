// SPDX-License-Identifier: GPL-2.0-only
//
// Transactions as lines of text and lines of JSON.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/text.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

/// The line above the lines of text.
Text text_header();
/// Appends one line. With fields or bodies in the transaction, further lines follow.
void append_text(Text& text, const Transaction& transaction);

/// Appends one JSON object on one line. Written by hand, as at 100,000 transactions a second a tree of
/// values for each costs more than all the rest.
void append_json(Text& text, const Transaction& transaction);

/// Appends `member`, which ends in `[`, then `{"name":…,"value":…}` for each field, and `]`.
void append_fields_json(std::string& out, std::string_view member,
                        const std::vector<HeaderField>& fields);

/// Nanoseconds since the epoch as `2026-01-31T12:00:00.123456Z`.
std::string iso_time(Time time);

} // namespace netctl::trace
