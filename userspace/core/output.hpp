// SPDX-License-Identifier: GPL-2.0-only
//
// What a command prints. A command builds a value first; this renders it as text or as JSON.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/result.hpp"

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
    void document(const Json& value, const std::string& text) const;
    /// One line of a stream, flushed at once; false if the reader is gone.
    bool line(const Json& value, const std::string& text) const;
    struct Written {
        std::size_t bytes = 0; ///< of what was to be written
        int error = 0;         ///< errno; EPIPE: the reader is gone
    };
    /// Lines of a stream that are rendered already, written at once. For streams too fast to go line
    /// by line, and for writers that go on when a disk is full.
    Written stream(const std::string& lines) const;
    /// The size of the terminal that standard output is; nothing if it is none.
    std::optional<TerminalSize> terminal() const;
    /// What was done, for a person: on standard output without --json, never with --quiet.
    void done(const std::string& text) const;
    /// Something the user should know although all went well: standard error, not with --quiet.
    void note(const std::string& text) const;
    void notes(const std::vector<std::string>& texts) const;

  private:
    bool json_;
    bool quiet_;
};

/// Writes an error, with its hint, to standard error.
void print_error(const Error& error);
/// Writes text as it is to standard output.
void print_text(const std::string& text);

/// Rows of text in aligned columns; numbers to the right where `right` says so.
class TextTable {
  public:
    struct Column {
        std::string title;
        bool right = false;
    };
    explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    bool empty() const { return rows_.empty(); }
    /// With the titles as first line; no trailing blanks.
    std::string render(const std::string& indent = "") const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

} // namespace netctl
