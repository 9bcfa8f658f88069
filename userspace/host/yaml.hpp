// SPDX-License-Identifier: GPL-2.0-only
//
// A YAML document as a tree in which every node knows where it stands. What people do not write by hand, and
// what a machine may be tricked with, is refused: anchors, aliases, tags, keys that stand twice, several
// documents, and what is too deep or too large.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.hpp"

namespace netctl::host {

struct YamlMember;

struct YamlNode {
    enum class Kind { none, scalar, list, map };
    Kind kind = Kind::none;
    std::size_t line = 0, column = 0; ///< from 1, in bytes; of a block of text: where it begins
    bool quoted = false;              ///< a scalar that is a string whatever it looks like
    std::string text;                 ///< of a scalar
    std::vector<YamlNode> items;
    std::vector<YamlMember> members;

    const YamlNode* find(std::string_view key) const;
};

struct YamlMember {
    YamlNode name, value;
};

struct YamlDocument {
    std::string name; ///< for messages
    std::string text;
    YamlNode root;

    /// An error at a place: `NAME:LINE:COLUMN: MESSAGE`, the line and a caret.
    Error error_at(std::size_t line, std::size_t column, const Text& message, Text hint = {}) const;
    Error error_at(const YamlNode& node, const Text& message, Text hint = {}) const {
        return error_at(node.line, node.column, message, std::move(hint));
    }
    /// The line as it stands in the file, without its end; from 1.
    std::string_view line(std::size_t number) const;
};

Result<YamlDocument> read_yaml(std::string name, std::string text);

} // namespace netctl::host
