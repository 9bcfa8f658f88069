// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/release.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fnmatch.h>

#include "core/duration.hpp"
#include "fleet/bytes.hpp"
#include "host/config.hpp"
#include "host/config_keys.hpp"

namespace netctl::fleet {

namespace {

using host::ConfigForm;
using host::ConfigTable;
using host::YamlDocument;
using host::YamlNode;

constexpr std::size_t most_release_errors = 20;
constexpr std::size_t most_documents = 1000;

const ConfigTable& rollout_table() {
    static const ConfigTable table{
        "`rollout`",
        {{.name = "canary",
          .form = ConfigForm::texts,
          .help = "labels of the hosts that take a release first: KEY=VALUE"},
         {.name = "stages",
          .form = ConfigForm::texts,
          .help = "rising shares of the hosts, the last 100%"},
         {.name = "soak",
          .form = ConfigForm::text,
          .help = "how long a host's probes have to hold before it confirms, from 1s to 24h"},
         {.name = "max-failed",
          .form = ConfigForm::text,
          .help = "the share of a stage's hosts that may fail"}}};
    return table;
}

const ConfigTable& selector_table() {
    static const ConfigTable table{
        "`hosts`",
        {{.name = "labels",
          .form = ConfigForm::texts,
          .help = "all of which a host has to have: KEY=VALUE, `not KEY=VALUE`"},
         {.name = "names",
          .form = ConfigForm::texts,
          .help = "one of which a host has to have; * and ? stand for anything"}}};
    return table;
}

struct Part {
    std::size_t number = 0, line = 0;
    std::string text; ///< behind as many empty lines as stand before it in the file
    bool empty = true;
};

/// The documents of a file. In YAML three dashes in the first columns part them wherever they stand.
std::vector<Part> parts_of(const std::string& text) {
    std::vector<Part> parts(1);
    parts[0].number = parts[0].line = 1;
    std::size_t line = 1;
    for (std::size_t at = 0; at < text.size(); line++) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string_view content(text.data() + at, end - at);
        at = end + 1;
        const std::size_t last = content.find_last_not_of(" \t\r");
        const bool marks = content.starts_with("---") && last == 2;
        if (marks && line > 1 && (!parts.back().empty || parts.size() > 1)) {
            parts.push_back({parts.back().number + 1, line + 1, std::string(line, '\n'), true});
            continue;
        }
        if (marks) {
            parts.back().text += '\n';
            continue;
        }
        parts.back().text += std::string(content) + '\n';
        const std::size_t first = content.find_first_not_of(" \t\r");
        if (first != std::string_view::npos && content[first] != '#')
            parts.back().empty = false;
    }
    return parts;
}

class ReleaseReader {
  public:
    explicit ReleaseReader(std::string name) { release_.name = std::move(name); }

    Result<Release> read(const std::string& text) {
        std::vector<Part> parts = parts_of(text);
        if (parts.size() > most_documents)
            return Error::usage(
                Text::format("{} has more than {} documents", release_.name, most_documents));
        for (const Part& part : parts) {
            if (part.number == 1)
                read_fleet(part);
            else if (!part.empty)
                read_policy_document(part);
        }
        if (errors_.empty())
            return std::move(release_);
        Error all = Error::usage({}, errors_.front().hint);
        for (std::size_t i = 0; i < std::min(errors_.size(), most_release_errors); i++)
            all.what += i == 0 ? errors_[i].what : Text::format("\n{}", errors_[i].what);
        if (errors_.size() > most_release_errors)
            all.what += Text::format("\nand more");
        return all;
    }

  private:
    void refuse(const YamlDocument& document, const YamlNode& node, const Error& error) {
        errors_.push_back(document.error_at(node, error.what, error.hint));
    }

    /// Does something with each word of a key, which check_against() has found to have words.
    template <class Take>
    void each_word(const YamlDocument& document, const YamlNode* node, const Take& take) {
        if (node == nullptr)
            return;
        const auto one = [&](const YamlNode& word) {
            Result<> taken = take(word.text);
            if (!taken)
                refuse(document, word, std::move(taken).error());
        };
        if (node->kind == YamlNode::Kind::scalar)
            one(*node);
        for (const YamlNode& item : node->items)
            one(item);
    }

    void read_fleet(const Part& part) {
        auto parsed = host::read_yaml(release_.name, part.text);
        if (!parsed) {
            errors_.push_back(std::move(parsed).error());
            return;
        }
        const YamlDocument document = std::move(*parsed);
        const YamlNode& root = document.root;
        static const ConfigTable table{
            "the first document",
            {{.name = "fleet", .form = ConfigForm::text, .help = "its name", .required = true},
             {.name = "rollout",
              .form = ConfigForm::object,
              .help = "who takes a release when",
              .table = &rollout_table()},
             {.name = "probes",
              .form = ConfigForm::texts,
              .help = "what a host has to be able to do with the release in force"}}};
        // The inventory has names and labels of the user's choice: it is no business of the table.
        YamlNode rest = root;
        std::erase_if(rest.members, [](const auto& one) { return one.name.text == "inventory"; });
        const std::size_t before = errors_.size();
        host::check_against(table, rest, document, errors_);
        if (errors_.size() != before)
            return;
        const YamlNode& fleet = *root.find("fleet");
        release_.fleet = fleet.text;
        if (!is_host_name(release_.fleet))
            refuse(document, fleet,
                   Error::usage(Text::format("'{}' is no name of a fleet", release_.fleet),
                                "letters, digits, dots and dashes"));
        if (const YamlNode* rollout = root.find("rollout"))
            read_rollout(document, *rollout);
        each_word(document, root.find("probes"), [&](const std::string& word) -> Result<> {
            release_.probes.push_back(NETCTL_TRY(parse_probe(word)));
            return {};
        });
        if (const YamlNode* inventory = root.find("inventory"))
            read_inventory(document, *inventory);
    }

    void read_rollout(const YamlDocument& document, const YamlNode& node) {
        Rollout& rollout = release_.rollout;
        each_word(document, node.find("canary"), [&](const std::string& word) -> Result<> {
            rollout.canary.push_back(NETCTL_TRY(parse_label_term(word)));
            return {};
        });
        if (const YamlNode* stages = node.find("stages")) {
            rollout.stages.clear();
            each_word(document, stages, [&](const std::string& word) -> Result<> {
                const unsigned share = NETCTL_TRY(parse_share(word, 1));
                if (!rollout.stages.empty() && share <= rollout.stages.back())
                    return Error::usage("a stage is larger than the one before it");
                rollout.stages.push_back(share);
                return {};
            });
            if (rollout.stages.empty() || rollout.stages.back() != 10000) {
                refuse(document, *stages, Error::usage("the last stage is 100%"));
                rollout.stages = {10000};
            }
        }
        each_word(document, node.find("soak"), [&](const std::string& word) -> Result<> {
            using std::chrono::seconds;
            const auto span =
                NETCTL_TRY(parse_duration("soak", word, seconds(1), std::chrono::hours(24)));
            rollout.soak = std::chrono::ceil<seconds>(span);
            return {};
        });
        each_word(document, node.find("max-failed"), [&](const std::string& word) -> Result<> {
            rollout.max_failed = NETCTL_TRY(parse_share(word, 0));
            return {};
        });
    }

    void read_inventory(const YamlDocument& document, const YamlNode& node) {
        if (node.kind != YamlNode::Kind::map) {
            refuse(document, node,
                   Error::usage("`inventory` has hosts, and labels of each",
                                "web1: {role: web, zone: eu-1}"));
            return;
        }
        for (const auto& [name, labels] : node.members) {
            if (!is_host_name(name.text))
                refuse(document, name,
                       Error::usage(Text::format("'{}' is no name of a host", name.text),
                                    "letters, digits, dots and dashes"));
            Labels& of_host = release_.inventory[name.text];
            for (const auto& [key, value] : labels.members) {
                const auto term = parse_label_term(key.text + "=" + value.text);
                if (term && value.kind == YamlNode::Kind::scalar && !term->negated)
                    of_host.emplace(term->key, term->value);
                else
                    refuse(document, key,
                           Error::usage(Text::format("'{}' is no label", key.text),
                                        "letters, digits and ._/-"));
            }
            if (labels.kind != YamlNode::Kind::map && labels.kind != YamlNode::Kind::none)
                refuse(document, labels,
                       Error::usage("a host has labels: keys and values, or none: {}"));
        }
    }

    static Result<Probe> parse_probe(const std::string& text) {
        const auto wrong = [&] {
            return Error::usage(Text::format("'{}' is no probe", text),
                                "tcp HOST:PORT, http URL, netctl status");
        };
        Probe probe;
        if (text == "netctl status") {
            probe.kind = Probe::Kind::status;
        } else if (text.starts_with("http http://") || text.starts_with("http https://")) {
            probe.kind = Probe::Kind::http;
            probe.url = text.substr(5);
            if (probe.url.find_first_of(" \t\n") != std::string::npos)
                return wrong();
        } else if (text.starts_with("tcp ")) {
            probe.kind = Probe::Kind::tcp;
            const std::size_t colon = text.rfind(':');
            if (colon == std::string::npos || colon < 5)
                return wrong();
            probe.host = text.substr(4, colon - 4);
            probe.port = text.substr(colon + 1);
            if (probe.host.starts_with('[') && probe.host.ends_with(']'))
                probe.host = probe.host.substr(1, probe.host.size() - 2);
            if (probe.host.empty() || probe.host.find(' ') != std::string::npos ||
                probe.port.empty() || probe.port.size() > 5 ||
                probe.port.find_first_not_of("0123456789") != std::string::npos ||
                std::stoul(probe.port) - 1 > 65534)
                return wrong();
        } else {
            return wrong();
        }
        return probe;
    }

    void read_policy_document(const Part& part) {
        auto parsed = host::read_yaml(release_.name, part.text);
        if (!parsed) {
            errors_.push_back(std::move(parsed).error());
            return;
        }
        PolicyDocument made{part.number, part.line, {}, part.text, {}};
        const std::size_t before = errors_.size();
        take_selector(*parsed, made);
        if (errors_.size() != before)
            return;
        const auto config = host::parse_config(release_.name, made.text);
        if (!config) {
            errors_.push_back(config.error());
            return;
        }
        for (const auto& [name, set] : config->sets)
            made.titles.insert("set " + name);
        for (const host::FilterConfig& filter : config->filters)
            made.titles.insert(filter.title());
        if (config->policy)
            made.titles.insert("policy");
        if (config->redirect)
            made.titles.insert("redirect");
        // Without the lines that stand before it in the release: a host has it as a file of its own.
        made.text.erase(0, made.text.find_first_not_of('\n'));
        release_.documents.push_back(std::move(made));
    }

    /// Reads the key `hosts`, and takes its lines out of the text, which is netctl's own format then.
    void take_selector(const YamlDocument& document, PolicyDocument& made) {
        const YamlNode& root = document.root;
        if (root.kind != YamlNode::Kind::map)
            return; // netctl's own reader says what is wrong with it
        std::size_t from = 0, to = std::string::npos;
        for (const auto& [name, value] : root.members) {
            if (name.text == "hosts")
                from = name.line;
            else if (from != 0 && to == std::string::npos)
                to = name.line;
        }
        const YamlNode* hosts = root.find("hosts");
        if (hosts == nullptr)
            return;
        for (const auto& [name, value] : root.members)
            if (name.column != 1) {
                refuse(document, name,
                       Error::usage("a document with `hosts` has its keys in the first column",
                                    "each on a line of its own"));
                return;
            }
        host::check_against(selector_table(), *hosts, document, errors_);
        each_word(document, hosts->find("labels"), [&](const std::string& word) -> Result<> {
            made.hosts.labels.push_back(NETCTL_TRY(parse_label_term(word)));
            return {};
        });
        each_word(document, hosts->find("names"), [&](const std::string& word) -> Result<> {
            made.hosts.names.push_back(word);
            return {};
        });
        if (made.hosts.labels.empty() && made.hosts.names.empty())
            refuse(document, *hosts,
                   Error::usage("`hosts` selects nobody by name or label",
                                "a document for all hosts has no `hosts`"));
        // What comments on the next key stays.
        while (to != std::string::npos && to > from + 1 && document.line(to - 1).starts_with('#'))
            to--;
        std::string without;
        std::size_t line = 1;
        for (std::size_t at = 0; at < made.text.size(); line++) {
            const std::size_t end = std::min(made.text.find('\n', at), made.text.size());
            if (line < from || line >= to)
                without += made.text.substr(at, end - at);
            without += '\n';
            at = end + 1;
        }
        made.text = std::move(without);
    }

    Release release_;
    std::vector<Error> errors_;
};

/// Why a document is not for a host; empty if it is.
std::string why_not(const HostSelector& hosts, const Host& host) {
    for (const LabelTerm& term : hosts.labels) {
        if (term.holds(host.labels))
            continue;
        const auto found = host.labels.find(term.key);
        return found == host.labels.end()
                   ? fmt::format("it is for {}, and the host has no label {}", term.to_string(),
                                 term.key)
                   : fmt::format("it is for {}, and the host has {}={}", term.to_string(), term.key,
                                 found->second);
    }
    const bool named =
        hosts.names.empty() || std::ranges::any_of(hosts.names, [&](const auto& one) {
            return fnmatch(one.c_str(), host.name.c_str(), 0) == 0;
        });
    return named ? std::string() : "it is for hosts of other names";
}

} // namespace

std::string Probe::to_string() const {
    switch (kind) {
    case Kind::status: return "netctl status";
    case Kind::http: return "http " + url;
    case Kind::tcp:
        return host.find(':') == std::string::npos ? fmt::format("tcp {}:{}", host, port)
                                                   : fmt::format("tcp [{}]:{}", host, port);
    }
    return "";
}

bool is_host_name(std::string_view name) {
    const auto is_word = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    return !name.empty() && name.size() <= 253 && is_word(name[0]) &&
           std::ranges::all_of(name, [&](char c) { return is_word(c) || c == '.' || c == '-'; });
}

Result<Release> parse_release(const std::string& name, const std::string& text) {
    return ReleaseReader(name).read(text);
}

Host host_of(const Release& release, const std::string& name, const Labels& own) {
    Host host{name, {}};
    if (const auto found = release.inventory.find(name); found != release.inventory.end())
        host.labels = found->second;
    host.labels.insert(own.begin(), own.end()); // which leaves what is there
    return host;
}

std::string Rendered::text() const {
    std::string all;
    for (const std::string& file : files)
        all += (all.empty() ? "" : "---\n") + file;
    return all;
}

std::string Rendered::sha256() const {
    return sha256_text(text());
}

Result<Rendered> render(const Release& release, const Host& host) {
    Rendered rendered;
    std::map<std::string, std::size_t> said;
    for (const PolicyDocument& document : release.documents) {
        if (std::string why = why_not(document.hosts, host); !why.empty()) {
            rendered.skipped.push_back({document.number, document.line, std::move(why)});
            continue;
        }
        for (const std::string& title : document.titles) {
            const auto [before, is_new] = said.emplace(title, document.line);
            if (!is_new)
                return Error::usage(
                    Text::format("{}:{}: {} is told of twice for the host {}", release.name,
                                 document.line, title, host.name),
                    Text::format("the document at line {} tells of it already", before->second));
        }
        rendered.titles.insert(document.titles.begin(), document.titles.end());
        rendered.files.push_back(document.text);
    }
    return rendered;
}

} // namespace netctl::fleet
