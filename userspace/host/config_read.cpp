// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/lines.hpp"
#include "datapath/set_name.hpp"
#include "features/set/controller.hpp"
#include "host/config.hpp"
#include "host/config_keys.hpp"
#include "sys/text_file.hpp"

namespace netctl::host {

namespace {

constexpr std::size_t most_config_errors = 20;

/// What was read, with where each name was said first.
struct Reading {
    HostConfig config;
    std::map<std::string, std::string> said; ///< title -> FILE:LINE
    std::set<std::string> files;             ///< canonical paths
    std::vector<Error> errors;
};

std::string_view trimmed(std::string_view line) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos)
        return {};
    return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

/// Where in its rule an error is, as its text shows: the message, the rule, and a caret below, each indented
/// by two. 0 if it is not of that form, as where a long rule is cut.
std::size_t caret_of(std::string_view what) {
    const std::size_t rule = what.find("\n  ");
    const std::size_t carets = rule == what.npos ? rule : what.find("\n  ", rule + 1);
    if (carets == what.npos || what.substr(rule + 3).starts_with("…"))
        return 0;
    const std::size_t caret = what.find('^', carets);
    return caret == what.npos ? 0 : caret - carets - 3;
}

/// A line of a list or block.
struct ConfigLine {
    std::string text;
    const YamlNode* node; ///< that it is from
};

std::vector<ConfigLine> lines_of(const YamlNode* node) {
    std::vector<ConfigLine> lines;
    const auto take = [&](const YamlNode& from) {
        for (const NumberedLine& one : numbered_lines(from.text)) {
            const std::string_view line = trimmed(one.text);
            if (!line.empty() && line.front() != '#')
                lines.push_back({std::string(line), &from});
        }
    };
    if (node != nullptr && node->kind == YamlNode::Kind::scalar)
        take(*node);
    if (node != nullptr)
        for (const YamlNode& item : node->items)
            take(item);
    return lines;
}

bool is_yaml(const std::string& path) {
    return path.ends_with(".yaml") || path.ends_with(".yml");
}

void read_one(const std::string& name, const std::string& text, const std::string& folder,
              Reading& reading);

class ConfigReader {
  public:
    ConfigReader(const YamlDocument& document, std::string folder, Reading& reading)
        : document_(document), folder_(std::move(folder)), reading_(reading) {}

    void read() {
        const YamlNode& root = document_.root;
        if (root.kind == YamlNode::Kind::none)
            return; // an empty file says nothing
        const std::size_t before = reading_.errors.size();
        check_against(config_table(), root, document_, reading_.errors);
        if (reading_.errors.size() != before)
            return; // what follows believes in the form
        if (const YamlNode* sets = root.find("sets"))
            for (const auto& [name, value] : sets->members)
                read_set(name, value);
        for (const Hook hook : {Hook::xdp, Hook::tc})
            if (const YamlNode* entries = root.find(to_string(hook)))
                for (const YamlNode& entry : entries->items)
                    read_filter(hook, entry);
        if (const YamlNode* policy = root.find("policy"); policy && is_new("policy", *policy))
            read_policy(*policy);
        if (const YamlNode* redirect = root.find("redirect");
            redirect && is_new("redirect", *redirect))
            read_redirect(*redirect);
        for (const ConfigLine& line : words_of_key(root, "absent"))
            read_absent(line);
        for (const ConfigLine& line : words_of_key(root, "include"))
            read_included(line);
        if (flag(root, "prune"))
            reading_.config.prune = true;
    }

  private:
    std::string place(const YamlNode& node) const {
        return fmt::format("{}:{}", document_.name, node.line);
    }

    /// False, and an error, if it was said before.
    bool is_new(const std::string& title, const YamlNode& node) {
        const auto [said, is_first] = reading_.said.emplace(title, place(node));
        if (!is_first)
            reading_.errors.push_back(
                document_.error_at(node, Text::format("{} is told of twice", title),
                                   Text::format("it is at {} already", said->second)));
        return is_first;
    }

    static std::string word(const YamlNode& node, std::string_view key,
                            const std::string& otherwise = {}) {
        const YamlNode* found = node.find(key);
        return found != nullptr ? found->text : otherwise;
    }
    static bool flag(const YamlNode& node, std::string_view key) {
        return word(node, key) == "true";
    }
    static std::vector<ConfigLine> words_of_key(const YamlNode& node, std::string_view key) {
        return lines_of(node.find(key));
    }

    /// Where a line stands in the file.
    std::pair<std::size_t, std::size_t> locate(const ConfigLine& line) const {
        for (std::size_t number = line.node->line; number < line.node->line + 100'000; number++) {
            const std::string_view source = document_.line(number);
            const std::size_t column = source.find(line.text);
            if (column != std::string_view::npos)
                return {number, column + 1};
            if (source.data() == nullptr)
                break;
        }
        return {line.node->line, line.node->column};
    }

    void add_error(const ConfigLine& line, Error error) {
        const auto [number, column] = locate(line);
        const std::size_t within = caret_of(error.what.string());
        reading_.errors.push_back(std::move(error).within(
            Text::format("{}:{}:{}", document_.name, number, column + within)));
    }

    /// False, and an error, where YAML ended a rule without quotes at a ` #` that looks like a part of it.
    bool nothing_cut_off(const ConfigLine& line) {
        const YamlNode& node = *line.node;
        const std::string_view source = document_.line(node.line);
        if (node.quoted || source.size() < node.column ||
            !source.substr(node.column - 1).starts_with(node.text))
            return true;
        const std::string_view rest = source.substr(node.column - 1 + node.text.size());
        const std::size_t mark = rest.find_first_not_of(" \t");
        if (mark == 0 || mark >= rest.size() - 1 || rest[mark] != '#' || rest[mark + 1] == ' ')
            return true;
        reading_.errors.push_back(document_.error_at(
            node.line, node.column + node.text.size() + mark,
            "YAML takes this for a comment, so it is no part of the rule",
            "quotes around the rule make it one; a comment has a blank behind its #"));
        return false;
    }

    std::vector<Rule> rules(const YamlNode& node, std::string_view key, Hook hook) {
        std::vector<Rule> all;
        for (const ConfigLine& line : words_of_key(node, key)) {
            if (reading_.errors.size() > most_config_errors)
                break;
            if (!nothing_cut_off(line))
                continue;
            auto rule = parse_rule(line.text, hook);
            if (rule)
                all.push_back(std::move(*rule));
            else
                add_error(line, std::move(rule).error());
        }
        return all;
    }

    void read_set(const YamlNode& name, const YamlNode& node) {
        SetConfig set;
        set.name = name.text;
        if (auto fits = datapath::check_set_name(set.name); !fits) {
            reading_.errors.push_back(
                document_.error_at(name, fits.error().what, fits.error().hint));
            return;
        }
        if (!is_new("set " + set.name, name))
            return;
        set.type = std::move(datapath::parse_set_type(word(node, "type")))
                       .value_or(datapath::SetType::cidr);
        if (const YamlNode* size = node.find("size"))
            set.size = static_cast<std::uint32_t>(number_in(*size));
        set.external = word(node, "managed") == "external";
        const YamlNode *elements = node.find("elements"), *file = node.find("file");
        if ((elements != nullptr) + (file != nullptr) + (set.external ? 1 : 0) > 1) {
            reading_.errors.push_back(
                document_.error_at(name, "a set has `elements`, a `file`, or `managed: external`",
                                   "who keeps its elements has to be one"));
            return;
        }
        const bool named = set.type == datapath::SetType::name;
        for (const char* key : {"names", "resolvers", "netns", "grace", "elements", "file"})
            if (const YamlNode* found = node.find(key);
                found && named == (found == elements || found == file)) {
                reading_.errors.push_back(document_.error_at(
                    *found,
                    Text::format("a set of type {} has no `{}`", datapath::to_string(set.type),
                                 key),
                    "`names`, `resolvers`, `netns` and `grace` are for type name, `elements` and "
                    "`file` for the others"));
                return;
            }
        if (named) {
            read_names_of(set, node);
            reading_.config.sets.emplace(set.name, std::move(set));
            return;
        }
        if (elements != nullptr)
            read_elements_of(set, *elements);
        if (file != nullptr)
            read_file_of(set, *file);
        datapath::sort_listed(set.elements);
        reading_.config.sets.emplace(set.name, std::move(set));
    }

    void read_names_of(SetConfig& set, const YamlNode& node) {
        for (const ConfigLine& line : words_of_key(node, "names"))
            if (auto name = set::parse_wanted_name(line.text))
                set.names.push_back(name->to_string());
            else
                add_error(line, std::move(name).error());
        for (const ConfigLine& line : words_of_key(node, "resolvers"))
            if (auto address = Address::parse(line.text))
                set.resolvers.push_back(address->to_string());
            else
                add_error(line, std::move(address).error());
        set.netns = word(node, "netns");
        if (const YamlNode* grace = node.find("grace"))
            set.grace = static_cast<std::uint32_t>(number_in(*grace));
        for (auto* all : {&set.names, &set.resolvers}) {
            std::ranges::sort(*all);
            // Not std::ranges::unique(), which clang 14 does not compile.
            all->erase(std::unique(all->begin(), all->end()), all->end());
        }
    }

    void read_elements_of(SetConfig& set, const YamlNode& node) {
        const std::vector<ConfigLine> lines = lines_of(&node);
        std::string text;
        for (const ConfigLine& line : lines)
            text += line.text + "\n";
        datapath::ReadElements read = datapath::read_elements(set.type, text, document_.name);
        set.elements = std::move(read.elements);
        if (read.bad == 0)
            return;
        for (const ConfigLine& line : lines) {
            const auto one = datapath::read_elements(set.type, line.text, "");
            if (one.bad == 0)
                continue;
            const auto [number, column] = locate(line);
            reading_.errors.push_back(
                document_.error_at(number, column,
                                   Text::format("this is no element of a set of type {}",
                                                datapath::to_string(set.type)),
                                   one.errors.empty() ? Text() : one.errors.front().hint));
            if (reading_.errors.size() > most_config_errors)
                return;
        }
    }

    void read_file_of(SetConfig& set, const YamlNode& node) {
        if (folder_.empty()) {
            reading_.errors.push_back(
                document_.error_at(node, "there is no file beside which it could be"));
            return;
        }
        const std::string path = (std::filesystem::path(folder_) / node.text).string();
        const auto fail = [&](const Error& error) {
            reading_.errors.push_back(document_.error_at(node, error.what, error.hint));
        };
        const auto files = sys::text_files(path);
        if (!files)
            return fail(files.error());
        for (const std::string& name : *files) {
            const auto text = sys::read_text(name);
            if (!text)
                return fail(text.error());
            datapath::ReadElements read = datapath::read_elements(set.type, *text, name);
            std::ranges::move(read.elements, std::back_inserter(set.elements));
            std::ranges::move(read.errors, std::back_inserter(reading_.errors));
        }
    }

    static nc_verdict verdict(const std::string& text) {
        return text == "drop"   ? NC_VERDICT_DROP
               : text == "next" ? NC_VERDICT_NEXT
                                : NC_VERDICT_PASS;
    }

    void read_filter(Hook hook, const YamlNode& node) {
        FilterConfig filter;
        filter.hook = hook;
        filter.netns = word(node, "netns");
        filter.direction = word(node, "direction");
        filter.mode = word(node, "mode");
        if (filter.mode == "auto")
            filter.mode.clear();
        filter.default_verdict = verdict(word(node, "default", hook == Hook::tc ? "next" : "pass"));
        filter.unparsed_verdict = verdict(word(node, "on-unparsed", "drop"));
        if (const YamlNode* rate = node.find("log-rate"))
            filter.log_rate = static_cast<std::uint32_t>(number_in(*rate));
        filter.optional = flag(node, "optional");
        filter.where = place(node);
        filter.rules = rules(node, "rules", hook);
        const std::vector<ConfigLine> names = words_of_key(node, "interfaces");
        const YamlNode* match = node.find("match");
        if (match != nullptr)
            filter.match = {word(*match, "driver"), word(*match, "mac"), word(*match, "altname")};
        if (match != nullptr && !filter.match.any())
            reading_.errors.push_back(
                document_.error_at(*match, "`match` names none", "driver, mac or altname"));
        else if (names.empty() && match != nullptr && node.find("interfaces") == nullptr)
            reading_.config.filters.push_back(filter); // which they are shows on the host
        else if (names.empty())
            reading_.errors.push_back(document_.error_at(node, "`interfaces` names none",
                                                         "a name, or a list of names; or `match`"));
        for (const ConfigLine& name : names) {
            filter.interface = name.text;
            if (is_new(filter.title(), *name.node))
                reading_.config.filters.push_back(filter);
        }
    }

    void read_policy(const YamlNode& node) {
        PolicyConfig policy;
        policy.cgroup = word(node, "cgroup", "/");
        policy.layer = word(node, "layer");
        if (policy.layer == "auto")
            policy.layer.clear();
        policy.mode = word(node, "mode") == "audit" ? NC_POLICY_MODE_AUDIT : NC_POLICY_MODE_ENFORCE;
        policy.default_verdict = word(node, "default") == "deny" ? NC_POLICY_DENY : NC_POLICY_ALLOW;
        if (const YamlNode* rate = node.find("log-rate"))
            policy.log_rate = static_cast<std::uint32_t>(number_in(*rate));
        policy.rules = rules(node, "rules", Hook::policy);
        reading_.config.policy = std::move(policy);
    }

    void read_redirect(const YamlNode& node) {
        RedirectConfig redirect;
        redirect.cgroup = word(node, "cgroup", "/");
        redirect.allow_blocking = flag(node, "allow-blocking");
        redirect.cross_netns = flag(node, "cross-netns");
        for (const ConfigLine& line : words_of_key(node, "force"))
            redirect.force.push_back(line.text);
        redirect.rules = rules(node, "rules", Hook::redirect);
        redirect.to = rules(node, "to", Hook::to);
        reading_.config.redirect = std::move(redirect);
    }

    void read_included(const ConfigLine& line) {
        const auto fail = [&](const Text& what, const Text& hint = {}) {
            reading_.errors.push_back(document_.error_at(*line.node, what, hint));
        };
        if (folder_.empty())
            return fail("there is no file beside which it could be");
        const std::filesystem::path path = std::filesystem::path(folder_) / line.text;
        std::error_code failure;
        const bool is_folder = std::filesystem::is_directory(path, failure);
        std::vector<std::string> files{path.string()};
        if (is_folder) {
            auto found = sys::text_files(path.string());
            if (!found)
                return fail(found.error().what, found.error().hint);
            files = std::move(*found);
            std::erase_if(files, [](const std::string& file) { return !is_yaml(file); });
        }
        for (const std::string& file : files) {
            if (reading_.errors.size() > most_config_errors)
                return;
            const auto canonical = std::filesystem::weakly_canonical(file, failure);
            if (!reading_.files.insert(canonical.string()).second)
                return fail(Text::format("{} is read already", file),
                            "each file is read once, so none can include itself");
            const auto text = sys::read_text(file);
            if (!text)
                return fail(text.error().what, text.error().hint);
            read_one(file, *text, std::filesystem::path(file).parent_path().string(), reading_);
        }
    }

    void read_absent(const ConfigLine& line) {
        const bool known = line.text.starts_with("set ") || line.text.starts_with("xdp ") ||
                           line.text.starts_with("tc ") || line.text == "policy" ||
                           line.text == "redirect";
        if (!known) {
            reading_.errors.push_back(document_.error_at(
                *line.node, "this is nothing that can be absent",
                "set NAME, xdp IFACE, tc IFACE ingress|egress, policy, redirect"));
            return;
        }
        if (is_new(line.text, *line.node))
            reading_.config.absent.insert(line.text);
    }

    const YamlDocument& document_;
    std::string folder_;
    Reading& reading_;
};

/// All errors as one.
Error all_of(const std::vector<Error>& errors) {
    Error all = Error::usage({}, errors.front().hint);
    for (std::size_t i = 0; i < std::min(errors.size(), most_config_errors); i++)
        all.what += i == 0 ? errors[i].what : Text::format("\n{}", errors[i].what);
    if (errors.size() > most_config_errors)
        all.what += Text::format("\nand more");
    return all;
}

void read_one(const std::string& name, const std::string& text, const std::string& folder,
              Reading& reading) {
    auto document = read_yaml(name, text);
    if (document)
        ConfigReader(*document, folder, reading).read();
    else
        reading.errors.push_back(std::move(document).error());
}

Result<HostConfig> finished(Reading reading) {
    if (!reading.errors.empty())
        return all_of(reading.errors);
    return std::move(reading.config);
}

/// So that nothing includes it again.
void remember(const std::string& path, Reading& reading) {
    std::error_code failure;
    reading.files.insert(std::filesystem::weakly_canonical(path, failure).string());
}

} // namespace

std::string FilterConfig::title() const {
    return fmt::format("{} {}{}{}", to_string(hook), interface,
                       direction.empty() ? "" : " " + direction,
                       netns.empty() ? "" : " in " + netns);
}

Result<HostConfig> read_config(const std::string& path) {
    Reading reading;
    std::error_code failure;
    if (!path.empty() && path != "-" && std::filesystem::is_directory(path, failure)) {
        std::vector<std::string> files = NETCTL_TRY(sys::text_files(path));
        std::erase_if(files, [](const std::string& file) { return !is_yaml(file); });
        if (files.empty())
            return Error::usage(Text::format("{} has no file *.yaml or *.yml", path));
        for (const std::string& file : files)
            remember(file, reading);
        for (const std::string& file : files)
            read_one(file, NETCTL_TRY(sys::read_text(file)), path, reading);
        return finished(std::move(reading));
    }
    const std::string text = NETCTL_TRY(sys::read_text(path));
    if (path != "-")
        remember(path, reading);
    std::string folder =
        path.empty() || path == "-" ? "." : std::filesystem::path(path).parent_path().string();
    read_one(sys::text_name(path), text, folder.empty() ? "." : folder, reading);
    return finished(std::move(reading));
}

Result<HostConfig> parse_config(const std::string& name, const std::string& text) {
    Reading reading;
    read_one(name, text, "", reading);
    return finished(std::move(reading));
}

std::string config_schema() {
    Json json{{"title", "netctl's configuration of a host"}};
    json.update(schema_of(config_table()));
    return json.dump(2) + "\n";
}

} // namespace netctl::host
