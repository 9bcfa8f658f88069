// SPDX-License-Identifier: GPL-2.0-only
#include "host/config_keys.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/suggest.hpp"

namespace netctl::host {

namespace {

constexpr std::uint64_t most_events = 1'000'000'000;

const ConfigTable& set_table() {
    static const ConfigTable table{
        "a set",
        {{"type",
          ConfigForm::choice,
          "what it holds; IPv4 and IPv6 in one",
          {"host", "cidr", "port", "name"},
          0,
          0,
          nullptr,
          true},
         {.name = "size",
          .form = ConfigForm::number,
          .help = "elements of each family at most; cannot be changed later",
          .low = 1,
          .high = std::uint64_t{1} << 26},
         {"elements", ConfigForm::lines,
          "what is in it, and nothing else; lines as `netctl set import` reads them"},
         {"file", ConfigForm::text,
          "a file or folder of elements, as `netctl set import` reads it; found from the folder of "
          "this file"},
         {"names", ConfigForm::lines,
          "of type name: the names that are wanted, as `netctl set add` takes them"},
         {"resolvers", ConfigForm::texts,
          "of type name: whose answers are believed; if left out: those that this host asks"},
         {"netns", ConfigForm::text,
          "of type name: the network namespace whose answers are read, by name or path"},
         {.name = "grace",
          .form = ConfigForm::number,
          .help = "of type name: seconds that addresses stay beyond their time to live; if left "
                  "out: 60; cannot be changed later",
          .low = 0,
          .high = 604800},
         {"managed",
          ConfigForm::choice,
          "external: others keep its elements, and apply never touches them",
          {"here", "external"}}}};
    return table;
}

std::vector<ConfigKey> filter_keys(std::vector<ConfigKey> own,
                                   const std::vector<std::string>& verdicts) {
    own.push_back({"netns", ConfigForm::text, "the network namespace, by name or path"});
    own.push_back({"optional", ConfigForm::flag,
                   "true: no error if there is no such interface; it is left out, and told of"});
    own.push_back({"default", ConfigForm::choice,
                   fmt::format("verdict on what no rule matches; if left out: {}", verdicts[0]),
                   verdicts});
    own.push_back(
        {"on-unparsed", ConfigForm::choice,
         "verdict on what is cut, contradicts itself or nests too deep; if left out: drop",
         verdicts});
    own.push_back({.name = "log-rate",
                   .form = ConfigForm::number,
                   .help = "log events a second at most; if left out: 10000",
                   .low = 1,
                   .high = most_events});
    own.push_back({"rules", ConfigForm::lines,
                   "rules in order, the first that matches decides; see netctl-rules(7)"});
    return own;
}

const ConfigKey& interfaces_key() {
    static const ConfigKey key{.name = "interfaces",
                               .form = ConfigForm::texts,
                               .help =
                                   "names, or patterns with * ? and [], which share these rules"};
    return key;
}

const ConfigTable& match_table() {
    static const ConfigTable table{
        "`match`",
        {{"driver", ConfigForm::text, "as `ethtool -i` shows it; a pattern, as of names"},
         {"mac", ConfigForm::text, "the Ethernet address, in lower case; a pattern, as of names"},
         {"altname", ConfigForm::text, "another name of the interface; no pattern"}}};
    return table;
}

const ConfigKey& match_key() {
    static const ConfigKey key{.name = "match",
                               .form = ConfigForm::object,
                               .help = "only interfaces of which all of this holds; without "
                                       "`interfaces`: all such",
                               .table = &match_table()};
    return key;
}

const ConfigTable& xdp_table() {
    static const ConfigTable table{
        "an entry of xdp", filter_keys({interfaces_key(),
                                        match_key(),
                                        {"mode",
                                         ConfigForm::choice,
                                         "where to run; if left out: auto, the first that works",
                                         {"auto", "native", "generic"}}},
                                       {"pass", "drop"})};
    return table;
}

const ConfigTable& tc_table() {
    static const ConfigTable table{
        "an entry of tc",
        filter_keys({interfaces_key(),
                     match_key(),
                     {"direction",
                      ConfigForm::choice,
                      "which packets",
                      {"ingress", "egress"},
                      0,
                      0,
                      nullptr,
                      true},
                     {"mode",
                      ConfigForm::choice,
                      "how to attach; if left out: auto, tcx where the kernel has it",
                      {"auto", "tcx", "clsact"}}},
                    {"next", "pass", "drop"})};
    return table;
}

const ConfigTable& policy_table() {
    static const ConfigTable table{
        "the policy",
        {{"cgroup", ConfigForm::text, "whose connections are judged; if left out: all"},
         {"layer",
          ConfigForm::choice,
          "which hooks; if left out: auto",
          {"auto", "both", "cgroup", "lsm"}},
         {"mode",
          ConfigForm::choice,
          "audit: nothing is refused; if left out: enforce",
          {"enforce", "audit"}},
         {"default", ConfigForm::choice, "if left out: allow", {"allow", "deny"}},
         {.name = "log-rate",
          .form = ConfigForm::number,
          .help = "log events a second at most; if left out: 10000",
          .low = 1,
          .high = most_events},
         {"rules", ConfigForm::lines, "rules in order; see netctl-rules(7)"}}};
    return table;
}

const ConfigTable& redirect_table() {
    static const ConfigTable table{
        "redirect",
        {{"cgroup", ConfigForm::text, "whose connections; if left out: all"},
         {"allow-blocking", ConfigForm::flag, "true: sockets that block may join, too"},
         {"cross-netns", ConfigForm::flag, "true: ends may be in different network namespaces"},
         {"force", ConfigForm::texts,
          "cases of the self-test that may fail, when it is enabled; all: do not run it"},
         {"rules", ConfigForm::lines, "which connections skip the stack"},
         {"to", ConfigForm::lines, "where connections go instead; see netctl-redirect(8)"}}};
    return table;
}

Text words_of(const std::vector<std::string>& words) {
    return fmt::format("{}", fmt::join(words, ", "));
}

const char* kind_text(const YamlNode& node) {
    switch (node.kind) {
    case YamlNode::Kind::none: return "nothing";
    case YamlNode::Kind::scalar: return "a word";
    case YamlNode::Kind::list: return "a list";
    case YamlNode::Kind::map: return "keys";
    }
    return "";
}

std::optional<std::uint64_t> parse_number(const std::string& text) {
    std::uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status != std::errc{} || end != text.data() + text.size())
        return {};
    return number;
}

class Check {
  public:
    Check(const YamlDocument& document, std::vector<Error>& errors)
        : document_(document), errors_(errors) {}

    void object(const ConfigTable& table, const YamlNode& node) {
        if (node.kind != YamlNode::Kind::map) {
            refuse(node,
                   Text::format("{} has keys and values; here is {}", table.what, kind_text(node)));
            return;
        }
        std::vector<std::string> names;
        for (const ConfigKey& key : table.keys)
            names.push_back(key.name);
        for (const auto& [name, value] : node.members) {
            const auto found = std::ranges::find(table.keys, name.text, &ConfigKey::name);
            if (found == table.keys.end())
                refuse(name,
                       Text::format("{} has no key '{}'{}", table.what, name.text,
                                    did_you_mean(name.text, names)),
                       Text::format("keys: {}", words_of(names)));
            else
                check(*found, value);
        }
        for (const ConfigKey& key : table.keys)
            if (key.required && node.find(key.name) == nullptr)
                refuse(node, Text::format("{} needs the key '{}'", table.what, key.name), key.help);
    }

  private:
    void refuse(const YamlNode& node, const Text& message, Text hint = {}) {
        errors_.push_back(document_.error_at(node, message, std::move(hint)));
    }

    /// Whether it is of the kind that is wanted; else an error.
    bool is(const ConfigKey& key, const YamlNode& node, YamlNode::Kind kind, const char* wanted) {
        if (node.kind == kind)
            return true;
        refuse(node, Text::format("'{}' is {}; here is {}", key.name, wanted, kind_text(node)),
               key.help);
        return false;
    }

    void words(const ConfigKey& key, const YamlNode& node, const char* wanted) {
        if (node.kind == YamlNode::Kind::scalar)
            return;
        if (!is(key, node, YamlNode::Kind::list, wanted))
            return;
        for (const YamlNode& item : node.items)
            if (item.kind == YamlNode::Kind::map)
                refuse(item, Text::format("here are keys; '{}' is {}", key.name, wanted),
                       "what has `: ` in it needs quotes, or a block: `|`");
            else
                is(key, item, YamlNode::Kind::scalar, wanted);
    }

    void check(const ConfigKey& key, const YamlNode& node) {
        switch (key.form) {
        case ConfigForm::text: is(key, node, YamlNode::Kind::scalar, "a word"); return;
        case ConfigForm::choice:
            if (is(key, node, YamlNode::Kind::scalar, "a word") &&
                std::ranges::find(key.choices, node.text) == key.choices.end())
                refuse(node,
                       Text::format("'{}' is none of the words that '{}' takes{}", node.text,
                                    key.name, did_you_mean(node.text, key.choices)),
                       Text::format("allowed: {}", words_of(key.choices)));
            return;
        case ConfigForm::number: {
            const auto number = node.kind == YamlNode::Kind::scalar && !node.quoted
                                    ? parse_number(node.text)
                                    : std::nullopt;
            if (!number || *number < key.low || *number > key.high)
                refuse(node,
                       Text::format("'{}' is a number from {} to {}", key.name, key.low, key.high));
            return;
        }
        case ConfigForm::flag:
            if (node.kind != YamlNode::Kind::scalar || node.quoted ||
                (node.text != "true" && node.text != "false"))
                refuse(node, Text::format("'{}' is true or false", key.name), key.help);
            return;
        case ConfigForm::texts: words(key, node, "a word or a list of words"); return;
        case ConfigForm::lines:
            words(key, node, "a list, or a block of text with one a line");
            return;
        case ConfigForm::object: object(*key.table, node); return;
        case ConfigForm::objects:
            if (is(key, node, YamlNode::Kind::list, "a list"))
                for (const YamlNode& item : node.items)
                    object(*key.table, item);
            return;
        case ConfigForm::named:
            if (is(key, node, YamlNode::Kind::map, "names with keys below each"))
                for (const auto& [name, value] : node.members)
                    object(*key.table, value);
            return;
        }
    }

    const YamlDocument& document_;
    std::vector<Error>& errors_;
};

Json schema_of_key(const ConfigKey& key) {
    Json json;
    const Json word{{"type", Json::array({"string", "number", "boolean"})}};
    switch (key.form) {
    case ConfigForm::text: json = word; break;
    case ConfigForm::choice: json["enum"] = key.choices; break;
    case ConfigForm::number:
        json = {{"type", "integer"}, {"minimum", key.low}, {"maximum", key.high}};
        break;
    case ConfigForm::flag: json["type"] = "boolean"; break;
    case ConfigForm::texts:
    case ConfigForm::lines:
        json["anyOf"] = Json::array({word, {{"type", "array"}, {"items", word}}});
        break;
    case ConfigForm::object: json = schema_of(*key.table); break;
    case ConfigForm::objects: json = {{"type", "array"}, {"items", schema_of(*key.table)}}; break;
    case ConfigForm::named:
        json = {{"type", "object"}, {"additionalProperties", schema_of(*key.table)}};
        break;
    }
    json["description"] = key.help;
    return json;
}

} // namespace

const ConfigTable& config_table() {
    static const ConfigTable table{
        "the file",
        {{.name = "sets",
          .form = ConfigForm::named,
          .help = "sets by their names; rules say @NAME",
          .table = &set_table()},
         {.name = "xdp",
          .form = ConfigForm::objects,
          .help = "filters where the driver hands packets over",
          .table = &xdp_table()},
         {.name = "tc",
          .form = ConfigForm::objects,
          .help = "classifiers in front of and behind the network stack",
          .table = &tc_table()},
         {.name = "policy",
          .form = ConfigForm::object,
          .help = "who may connect where",
          .table = &policy_table()},
         {.name = "redirect",
          .form = ConfigForm::object,
          .help = "local TCP connections that skip the stack",
          .table = &redirect_table()},
         {"include", ConfigForm::texts,
          "files, or folders of *.yaml files, that are read as if they stood here; found from the "
          "folder of this file"},
         {"absent", ConfigForm::texts,
          "what is taken away if it is there: `set NAME`, `xdp IFACE`, `tc IFACE ingress|egress`, "
          "`policy`, `redirect`"},
         {"prune", ConfigForm::flag,
          "true: whatever of netctl the file does not name is taken away"}}};
    return table;
}

void check_against(const ConfigTable& table, const YamlNode& node, const YamlDocument& document,
                   std::vector<Error>& errors) {
    Check(document, errors).object(table, node);
}

Json schema_of(const ConfigTable& table) {
    Json properties = Json::object(), required = Json::array();
    for (const ConfigKey& key : table.keys) {
        properties[key.name] = schema_of_key(key);
        if (key.required)
            required.push_back(key.name);
    }
    Json json{
        {"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
    if (!required.empty())
        json["required"] = std::move(required);
    return json;
}

std::uint64_t number_in(const YamlNode& node) {
    return parse_number(node.text).value_or(0);
}

} // namespace netctl::host
