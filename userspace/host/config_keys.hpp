// SPDX-License-Identifier: GPL-2.0-only
//
// The keys of a configuration file: one table, by which files are checked and from which the JSON Schema is made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/output.hpp"
#include "host/yaml.hpp"

namespace netctl::host {

struct ConfigTable;

/// What stands behind a key.
enum class ConfigForm {
    text,    ///< a word
    choice,  ///< one of `choices`
    number,  ///< of [low, high]
    flag,    ///< true or false
    texts,   ///< a word, or a list of words
    lines,   ///< a list of texts, or a block with one a line
    object,  ///< keys of `table`
    objects, ///< a list of such
    named,   ///< names, and keys of `table` below each
};

struct ConfigKey {
    std::string name;
    ConfigForm form{};
    std::string help;
    std::vector<std::string> choices{};
    std::uint64_t low = 0, high = 0;
    const ConfigTable* table = nullptr;
    bool required = false;
};

struct ConfigTable {
    std::string what; ///< for messages: "an entry of xdp"
    std::vector<ConfigKey> keys;
};

/// The whole file.
const ConfigTable& config_table();

/// Adds an error for each thing in `node` that is not as the table says.
void check_against(const ConfigTable& table, const YamlNode& node, const YamlDocument& document,
                   std::vector<Error>& errors);

/// JSON Schema, draft 7.
Json schema_of(const ConfigTable& table);

/// A number that check_against() has taken.
std::uint64_t number_in(const YamlNode& node);

} // namespace netctl::host
