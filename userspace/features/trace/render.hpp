// SPDX-License-Identifier: GPL-2.0-only
//
// Transactions as lines of text and lines of JSON.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "features/trace/http_connection.hpp"

namespace netctl::trace {

/// Above the lines of text.
std::string text_header();
/// Appends one line, without its end. Bytes that a terminal might obey are shown as \xNN. With
/// fields or bodies in the transaction, further lines follow.
void append_text(std::string& out, const Transaction& transaction);

/// Appends one JSON object on one line, without its end. Written by hand, as at 100,000 transactions
/// a second a tree of values for each costs more than all the rest.
void append_json(std::string& out, const Transaction& transaction);

/// `text` as a JSON string with its quotes. What is no UTF-8 is read as Latin-1, so that any path
/// can be told from any other.
void append_json_string(std::string& out, std::string_view text);
/// The length of the UTF-8 sequence at the beginning, which is not empty, or 0 (RFC 3629).
std::size_t utf8_length(std::string_view text);
/// Nanoseconds since the epoch as `2026-01-31T12:00:00.123456Z`.
std::string iso_time(Time time);

} // namespace netctl::trace
