// SPDX-License-Identifier: GPL-2.0-only
//
// What a command prints. A command builds a value first; this renders it as text or as JSON.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/result.hpp"
#include "core/text.hpp"

namespace netctl {

/// Members keep the order in which they were put in, so that output is stable.
using Json = nlohmann::ordered_json; // complete in core/json.hpp

struct TerminalSize {
    unsigned columns = 0;
    unsigned rows = 0;
};

class Output {
  public:
    explicit Output(bool json, bool quiet = false) : json_(json), quiet_(quiet) {}

    bool json() const { return json_; }

    /// One document: `value` with --json, else `text` as it is.
    void document(const Json& value, const Text& text) const;
    /// A text of several lines is made by Text::format(): of any other, the line feeds would be shown.
    template <class S>
        requires(std::convertible_to<const S&, std::string>)
    void document(const Json& value, const S& text) const = delete;
    /// One line of a stream, flushed at once; false if it could not be written. A reader that is gone is
    /// the end of the stream and no failure.
    bool line(const Json& value, const Text& text) const;
    struct Written {
        std::size_t bytes = 0; ///< of what was to be written
        int error = 0;         ///< errno; EPIPE: the reader is gone
    };
    /// Lines of a stream that are rendered already, written at once. For streams too fast to go line
    /// by line, and for writers that go on when a disk is full.
    Written stream(const Text& lines) const;
    /// The size of the terminal that standard output is; nothing if it is none.
    std::optional<TerminalSize> terminal() const;
    /// What was done, for a person: on standard output without --json, never with --quiet.
    void done(const Text& text) const;
    /// Something the user should know although all went well: standard error, not with --quiet.
    void note(const Text& text) const;
    void notes(const std::vector<std::string>& texts) const;

  private:
    bool json_;
    bool quiet_;
};

/// Writes an error, with its hint, to standard error.
void print_error(const Error& error);
/// Writes text as it is to standard output.
void print_text(const Text& text);
/// Writes out what is still buffered. Fails if that, or any write to standard output before, failed.
Result<> finish_output();

/// Rows of text in aligned columns; numbers to the right where `right` says so.
class TextTable {
  public:
    struct Column {
        Text title;
        bool right = false;
    };
    explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void row(std::vector<Text> cells) { rows_.push_back(std::move(cells)); }
    bool empty() const { return rows_.empty(); }
    /// With the titles as first line; no trailing blanks.
    Text render(const Text& indent = {}) const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<Text>> rows_;
};

} // namespace netctl
