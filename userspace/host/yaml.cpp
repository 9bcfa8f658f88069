// SPDX-License-Identifier: GPL-2.0-only
#include "host/yaml.hpp"

#include <algorithm>
#include <optional>
#include <sstream>
#include <unordered_set>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include "core/rule_lexer.hpp"

namespace netctl::host {

namespace {

constexpr std::size_t most_bytes = std::size_t{64} << 20;
constexpr std::size_t most_nodes = 4'000'000;
constexpr std::size_t most_depth = 16;

/// Ends the parsing from within a handler; yaml-cpp has no other way. Does not leave read_yaml().
struct Refused {
    YAML::Mark mark;
    const char* what;
    const char* hint;
};

class TreeBuilder : public YAML::EventHandler {
  public:
    explicit TreeBuilder(YamlNode& root) : root_(&root) {}

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        check(mark, anchor, "?");
        put(make(YamlNode::Kind::none, mark));
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        throw Refused{mark, "aliases are not taken", "write out what the alias stands for"};
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        check(mark, anchor, tag);
        YamlNode node = make(YamlNode::Kind::scalar, mark);
        node.text = value;
        node.quoted = tag == "!";
        put(std::move(node));
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        check(mark, anchor, tag);
        open(make(YamlNode::Kind::list, mark));
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        check(mark, anchor, tag);
        open(make(YamlNode::Kind::map, mark));
    }
    void OnMapEnd() override { close(); }

  private:
    struct Level {
        YamlNode node;
        std::optional<YamlNode> key;
        std::unordered_set<std::string> keys;
    };

    void check(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& tag) {
        if (anchor != 0)
            throw Refused{mark, "anchors are not taken", "write it out where it is wanted"};
        if (!tag.empty() && tag != "?" && tag != "!")
            throw Refused{mark, "tags are not taken", "the key tells what the value is"};
        if (++nodes_ > most_nodes)
            throw Refused{mark, "the file has too many parts",
                          "elements of large sets belong into a file of their own: `file:`"};
    }

    static YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark) {
        YamlNode node;
        node.kind = kind;
        node.line = static_cast<std::size_t>(std::max(mark.line, 0)) + 1;
        node.column = static_cast<std::size_t>(std::max(mark.column, 0)) + 1;
        return node;
    }

    void open(YamlNode node) {
        if (levels_.size() >= most_depth)
            throw Refused{mark_of(node), "this is nested too deep", "no key needs that"};
        levels_.push_back({std::move(node), {}, {}});
    }

    void close() {
        YamlNode done = std::move(levels_.back().node);
        levels_.pop_back();
        put(std::move(done));
    }

    void put(YamlNode node) {
        if (levels_.empty()) {
            *root_ = std::move(node);
            return;
        }
        Level& level = levels_.back();
        if (level.node.kind == YamlNode::Kind::list) {
            level.node.items.push_back(std::move(node));
        } else if (level.key) {
            level.node.members.push_back({std::move(*level.key), std::move(node)});
            level.key.reset();
        } else {
            if (node.kind != YamlNode::Kind::scalar)
                throw Refused{mark_of(node), "a key has to be a word", ""};
            if (!level.keys.insert(node.text).second)
                throw Refused{mark_of(node), "this key stands here twice",
                              "only one of them can be meant"};
            level.key = std::move(node);
        }
    }

    static YAML::Mark mark_of(const YamlNode& node) {
        YAML::Mark mark;
        mark.line = static_cast<int>(node.line) - 1;
        mark.column = static_cast<int>(node.column) - 1;
        return mark;
    }

    YamlNode* root_;
    std::vector<Level> levels_;
    std::size_t nodes_ = 0;
};

} // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
    for (const auto& [name, value] : members)
        if (name.text == key)
            return &value;
    return nullptr;
}

std::string_view YamlDocument::line(std::size_t number) const {
    std::string_view rest = text;
    for (; number > 1; number--) {
        const std::size_t end = rest.find('\n');
        if (end == std::string_view::npos)
            return {};
        rest.remove_prefix(end + 1);
    }
    rest = rest.substr(0, rest.find('\n'));
    return rest.ends_with('\r') ? rest.substr(0, rest.size() - 1) : rest;
}

Error YamlDocument::error_at(std::size_t at_line, std::size_t column, const Text& message,
                             Text hint) const {
    const std::string_view shown = line(at_line);
    const std::size_t begin = std::min(column - 1, shown.size());
    std::size_t end = begin;
    while (end < shown.size() && std::string_view(" \t,:]}").find(shown[end]) == shown.npos)
        end++;
    return rule_error(shown, {begin, end}, message, {}, std::move(hint))
        .within(Text::format("{}:{}:{}", name, at_line, column));
}

Result<YamlDocument> read_yaml(std::string name, std::string text) {
    YamlDocument document{std::move(name), std::move(text), {}};
    if (document.text.size() > most_bytes)
        return Error::usage(
            Text::format("{} is larger than {} MiB", document.name, most_bytes >> 20),
            "elements of large sets belong into a file of their own: `file:`");
    const auto refuse = [&](const YAML::Mark& mark, const Text& what, Text hint) {
        return document.error_at(static_cast<std::size_t>(std::max(mark.line, 0)) + 1,
                                 static_cast<std::size_t>(std::max(mark.column, 0)) + 1, what,
                                 std::move(hint));
    };
    try {
        std::istringstream stream(document.text);
        YAML::Parser parser(stream);
        TreeBuilder builder(document.root);
        (void)parser.HandleNextDocument(builder);
        YamlNode second;
        TreeBuilder another(second);
        if (parser.HandleNextDocument(another))
            return document.error_at(second.line == 0 ? 1 : second.line,
                                     second.column == 0 ? 1 : second.column,
                                     "a second document begins here",
                                     "one file has one document; `apply DIR` reads several files");
    } catch (const Refused& refused) {
        return refuse(refused.mark, refused.what, refused.hint);
    } catch (const YAML::Exception& error) {
        return refuse(error.mark, Text::format("this is no YAML: {}", error.msg), {});
    }
    return document;
}

} // namespace netctl::host
