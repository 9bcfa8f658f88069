// SPDX-License-Identifier: GPL-2.0-only
//
// What `nft -j list ruleset` prints: libnftables-json(5), json_schema_version 1.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "core/json.hpp"
#include "core/rule_keys.hpp"
#include "datapath/set_text.hpp"
#include "host/import/foreign.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

/// A rule that stands for several (`vmap`, concatenations) becomes at most so many.
constexpr std::size_t most_alternatives = 1024;

/// What was read, or why it could not be.
struct Meaning {
    Alternatives alternatives{};
    std::string why{};
};

const Json nothing;

const Json& member(const Json& json, const char* name) {
    if (!json.is_object())
        return nothing;
    const auto found = json.find(name);
    return found == json.end() ? nothing : *found;
}
std::string text_of(const Json& json) {
    return json.is_string() ? json.get<std::string>() : std::string();
}
std::string text_of(const Json& json, const char* name) {
    return text_of(member(json, name));
}
std::optional<std::uint64_t> count_of(const Json& json) {
    if (json.is_number_unsigned() || (json.is_number_integer() && json.get<std::int64_t>() >= 0))
        return json.get<std::uint64_t>();
    return std::nullopt;
}
/// The only member of an object: what a statement or an expression is called.
std::string kind_of(const Json& json) {
    return json.is_object() && json.size() == 1 ? json.begin().key() : std::string();
}
/// For messages, not too long.
std::string brief(const Json& json) {
    constexpr std::size_t longest = 120;
    std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

/// What an expression on the left of a comparison looks at.
struct Looks {
    Key key{};
    std::vector<Match> implied{}; ///< what nft asks before
    std::uint8_t icmp = 0;        ///< of types and codes by name
    std::optional<std::uint32_t> mask{};
    enum class At : std::uint8_t {
        key,
        state,
        interface_in,
        interface_out,
        packet_type,
        family,
        fib
    };
    At at = At::key;
};

struct FieldName {
    std::string_view protocol, field;
    Key key;
};
constexpr FieldName fields[] = {
    {"ip", "saddr", Key::src},
    {"ip", "daddr", Key::dst},
    {"ip6", "saddr", Key::src},
    {"ip6", "daddr", Key::dst},
    {"ip", "protocol", Key::proto},
    {"ip6", "nexthdr", Key::proto},
    {"ip", "dscp", Key::dscp},
    {"ip6", "dscp", Key::dscp},
    {"ip", "ttl", Key::ttl},
    {"ip6", "hoplimit", Key::ttl},
    {"tcp", "flags", Key::flags},
    {"icmp", "type", Key::icmp_type},
    {"icmp", "code", Key::icmp_code},
    {"icmpv6", "type", Key::icmp_type},
    {"icmpv6", "code", Key::icmp_code},
    {"ether", "saddr", Key::ether_src},
    {"ether", "daddr", Key::ether_dst},
    {"ether", "type", Key::ether_type},
};

Match protocol_match(std::uint64_t number) {
    return ranges_match(Key::proto, {{number, number}});
}

class NftReader {
  public:
    NftReader(const std::string& name, Foreign& foreign) : name_(name), foreign_(foreign) {}

    Result<> read(std::string_view text) {
        const Json json = Json::parse(text, nullptr, false);
        const Json& objects = member(json, "nftables");
        if (!objects.is_array())
            return Error::usage(Text::format("{} is not what `nft -j list ruleset` prints", name_),
                                "nft -j list ruleset | netctl import -");
        for (const Json& object : objects) {
            const std::string kind = kind_of(object);
            if (kind == "set" || kind == "map")
                read_set(object.begin().value());
            else if (kind == "chain")
                read_chain(object.begin().value());
            else if (kind != "rule" && kind != "table" && kind != "metainfo")
                foreign_.not_taken.push_back(
                    {place_of(object.is_object() && object.size() == 1 ? object.begin().value()
                                                                       : nothing),
                     kind.empty() ? brief(object) : kind, "netctl has no such object",
                     effect_none});
        }
        for (const Json& object : objects)
            if (kind_of(object) == "rule")
                read_rule(object.begin().value());
        return {};
    }

  private:
    static std::string table_of(const Json& object) {
        return text_of(object, "family") + " " + text_of(object, "table");
    }
    static std::string place_of(const Json& object) {
        const std::string chain = text_of(object, "chain");
        std::string place = table_of(object);
        for (const std::string& part : {chain, text_of(object, "name")})
            if (!part.empty())
                place += " " + part;
        if (const auto handle = count_of(member(object, "handle")))
            place += fmt::format(" handle {}", *handle);
        return place;
    }

    void read_set(const Json& set) {
        const std::string key = table_of(set) + " " + text_of(set, "name");
        elements_[key] = member(set, "elem").is_null() ? Json::array() : member(set, "elem");
        if (text_of(set, "map") == "verdict" || !member(set, "map").is_null())
            return; // where it is used
        const std::string type = text_of(set, "type");
        const auto has_flag = [&](const char* flag) {
            const Json& flags = member(set, "flags");
            return flags.is_array() &&
                   std::find(flags.begin(), flags.end(), Json(flag)) != flags.end();
        };
        const bool address = type == "ipv4_addr" || type == "ipv6_addr";
        if (!address && type != "inet_service")
            return; // its elements stand in the rules
        SetConfig made;
        made.name = new_set_name(text_of(set, "name"), table_of(set));
        made.type = !address               ? datapath::SetType::port
                    : has_flag("interval") ? datapath::SetType::cidr
                                           : datapath::SetType::host;
        const Json list{{"nftables", Json::array({Json{{"set", set}}})}};
        datapath::ReadElements read;
        if (!member(set, "elem").is_null())
            read = datapath::read_elements(
                made.type, list.dump(-1, ' ', true, Json::error_handler_t::replace), key);
        if (read.bad != 0) {
            foreign_.not_taken.push_back({place_of(set), "",
                                          fmt::format("{} of its elements cannot be read: {}",
                                                      read.bad, read.errors.front().what.string()),
                                          effect_weaker | effect_cuts});
            return;
        }
        made.elements = std::move(read.elements);
        datapath::sort_listed(made.elements);
        if (const auto size = count_of(member(set, "size")); size && *size <= 16'000'000)
            made.size = static_cast<std::uint32_t>(
                std::max<std::uint64_t>({*size, made.elements.size(), 1}));
        set_names_[key] = made.name;
        foreign_.sets[made.name] = std::move(made);
    }

    std::string new_set_name(const std::string& name, const std::string& table) {
        std::string made = set_name_of(name);
        if (foreign_.sets.contains(made))
            made = set_name_of(table + "_" + name);
        for (int count = 2; foreign_.sets.contains(made); count++)
            made = set_name_of(name.substr(0, 50)) + "_" + std::to_string(count);
        return made;
    }

    void read_chain(const Json& object) {
        ForeignChain chain;
        chain.table = table_of(object);
        chain.name = text_of(object, "name");
        const std::string family = text_of(object, "family"), type = text_of(object, "type"),
                          hook = text_of(object, "hook");
        chain.ipv4 = family != "ip6";
        chain.ipv6 = family != "ip";
        chain.policy = text_of(object, "policy") == "drop" ? Outcome::drop : Outcome::pass;
        if (const Json& priority = member(object, "prio"); priority.is_number_integer())
            chain.priority = priority.get<int>();
        const bool of_ip = family == "ip" || family == "ip6" || family == "inet";
        // Before the routing decision: what is for this host is asked there, and then of input.
        // One of netdev that drops by itself drops what is no IP, too.
        const Json& device = member(object, "dev");
        if (device.is_array())
            for (const Json& one : device)
                chain.interfaces.push_back(text_of(one));
        else if (!device.is_null())
            chain.interfaces.push_back(text_of(device));
        const bool early = hook == "prerouting" || (hook == "ingress" && family == "netdev" &&
                                                    chain.policy == Outcome::pass);
        chain.type = type;
        if (hook.empty())
            chain.hook = ForeignHook::none;
        else if (type != "filter" || (!of_ip && !early))
            chain.hook = ForeignHook::other;
        else if (hook == "input" || early)
            chain.hook = ForeignHook::input;
        else if (hook == "output" || hook == "postrouting")
            chain.hook = ForeignHook::output;
        else
            chain.hook = hook == "forward" ? ForeignHook::forward : ForeignHook::other;
        constexpr int one_hook = 1'000'000; // more than priorities differ
        if (early)
            chain.priority = std::clamp(chain.priority, -one_hook / 2, one_hook / 2) -
                             (hook == "ingress" ? 2 * one_hook : one_hook);
        if (hook == "postrouting")
            chain.priority = std::clamp(chain.priority, -one_hook / 2, one_hook / 2) + one_hook;
        foreign_.chains.push_back(std::move(chain));
    }

    void read_rule(const Json& object) {
        const std::string table = table_of(object), name = text_of(object, "chain");
        const auto chain = std::find_if(
            foreign_.chains.begin(), foreign_.chains.end(),
            [&](const ForeignChain& one) { return one.table == table && one.name == name; });
        if (chain == foreign_.chains.end())
            return foreign_.not_taken.push_back(
                {place_of(object), "", "there is no such chain", effect_weaker | effect_cuts});
        ForeignRule rule;
        rule.place = place_of(object);
        rule.comment = text_of(object, "comment");
        table_ = table;
        acts_ = false;
        Alternatives alternatives{{}};
        std::vector<ForeignRule> made;
        const Json& statements = member(object, "expr");
        if (!statements.is_array())
            rule.unknown.push_back("its statements are missing");
        else
            for (const Json& statement : statements)
                read_statement(statement, rule, alternatives, made);
        // What it does instead of a verdict, to a set, a mark or the packet, others may go by.
        if (acts_ && rule.outcome == Outcome::none)
            rule.outcome = Outcome::leap;
        // Of a map, some may have been read before one that could not be.
        for (ForeignRule& one : made) {
            one.unknown = rule.unknown;
            if (acts_)
                one.outcome = Outcome::leap;
        }
        if (made.empty())
            made.push_back(rule);
        for (ForeignRule& one : made)
            one.limit = one.limit ? one.limit : rule.limit;
        const Alternatives all = alternatives;
        for (const ForeignRule& one : made)
            for (const std::vector<Match>& matches : all) {
                ForeignRule rest = one;
                rest.matches.insert(rest.matches.end(), matches.begin(), matches.end());
                chain->rules.push_back(std::move(rest));
            }
    }

    void read_statement(const Json& statement, ForeignRule& rule, Alternatives& alternatives,
                        std::vector<ForeignRule>& made) {
        const std::string kind = kind_of(statement);
        const Json& what = kind.empty() ? nothing : statement.begin().value();
        const auto is = [&](const char* name) { return kind == name; };
        if (is("match")) {
            read_match(what, rule, alternatives);
        } else if (is("vmap")) {
            read_vmap(what, rule, made);
        } else if (is("limit")) {
            read_limit(what, rule);
        } else if (is("log")) {
            rule.log = true;
        } else if (is("counter") || is("continue")) {
        } else if (!read_verdict(statement, rule.outcome, rule.target)) {
            rule.unknown.push_back(kind.empty() || what.is_null()
                                       ? fmt::format("netctl has no {}", brief(statement))
                                       : fmt::format("netctl has no '{}'", kind));
            acts_ = true;
        } else if (rule.outcome == Outcome::reject) {
            const std::string type = text_of(what, "type");
            if (!type.empty() && type != "tcp reset" && text_of(what, "expr") != "port-unreachable")
                rule.remarks.push_back(
                    "it answers 'port unreachable', or resets TCP, and nothing else");
        }
    }

    /// False: it is no verdict.
    static bool read_verdict(const Json& statement, Outcome& outcome, std::string& target) {
        const std::string kind = kind_of(statement);
        struct Named {
            std::string_view name;
            Outcome outcome;
        };
        constexpr Named verdicts[] = {{"accept", Outcome::pass},   {"drop", Outcome::drop},
                                      {"reject", Outcome::reject}, {"return", Outcome::back},
                                      {"jump", Outcome::jump},     {"goto", Outcome::leap},
                                      {"continue", Outcome::none}};
        for (const Named& one : verdicts)
            if (one.name == kind) {
                outcome = one.outcome;
                target = text_of(statement.begin().value(), "target");
                return true;
            }
        return false;
    }

    static void read_limit(const Json& what, ForeignRule& rule) {
        struct Unit {
            std::string_view name;
            std::uint64_t seconds;
        };
        constexpr Unit units[] = {{"second", 1}, {"minute", 60}, {"hour", 3600}, {"day", 86400}};
        const auto rate = count_of(member(what, "rate"));
        const std::string unit = text_of(what, "per"), size = text_of(what, "rate_unit");
        const auto* found = std::find_if(std::begin(units), std::end(units),
                                         [&](const Unit& one) { return one.name == unit; });
        if (!rate || *rate == 0 || found == std::end(units) || (!size.empty() && size != "packets"))
            return rule.unknown.push_back("its limit counts what netctl's do not");
        Limit limit;
        limit.count = *rate;
        limit.period_ns = found->seconds * 1'000'000'000;
        const Json& burst = member(what, "burst");
        if (!burst.is_null() && !count_of(burst))
            return rule.unknown.push_back(fmt::format("netctl has no burst {}", brief(burst)));
        limit.burst = std::max<std::uint64_t>(count_of(burst).value_or(5), 1);
        if (rule.limit)
            rule.unknown.push_back("it has two limits");
        rule.limit = limit;
        rule.above = member(what, "inv") == Json(true);
    }

    /// Nothing: netctl does not look at that; `why` tells.
    std::optional<Looks> looks_at(const Json& left, std::string& why) {
        const std::string kind = kind_of(left);
        const Json& what = kind.empty() ? nothing : left.begin().value();
        Looks looks;
        if (kind == "&" && what.is_array() && what.size() == 2) {
            auto inner = looks_at(what[0], why);
            if (!inner)
                return std::nullopt;
            const auto mask = bits_of(inner->key, what[1]);
            if (inner->at != Looks::At::key || !mask ||
                (inner->key != Key::flags && inner->key != Key::mark)) {
                why = fmt::format("netctl has no {}", brief(left));
                return std::nullopt;
            }
            inner->mask = *mask;
            return inner;
        }
        if (kind == "payload")
            return payload(text_of(what, "protocol"), text_of(what, "field"), why);
        if (kind == "meta")
            return meta(text_of(what, "key"), why);
        if (kind == "ct" && text_of(what, "key") == "state" && member(what, "dir").is_null()) {
            looks.at = Looks::At::state;
            return looks;
        }
        if (kind == "fib" && text_of(what, "result") == "type" &&
            member(what, "flags") == Json::array({"daddr"})) {
            looks.at = Looks::At::fib;
            return looks;
        }
        why = kind == "ct" ? fmt::format("netctl has no 'ct {}'", text_of(what, "key"))
                           : fmt::format("netctl has no {}", brief(left));
        return std::nullopt;
    }

    static std::optional<Looks> payload(const std::string& protocol, const std::string& field,
                                        std::string& why) {
        Looks looks;
        if (field == "sport" || field == "dport") {
            looks.key = field == "sport" ? Key::sport : Key::dport;
            if (protocol == "th")
                return looks;
            const auto number = protocol_of(protocol);
            if (number && std::find(std::begin(port_protocols), std::end(port_protocols),
                                    *number) != std::end(port_protocols)) {
                looks.implied.push_back(protocol_match(*number));
                return looks;
            }
        }
        for (const FieldName& one : fields)
            if (one.protocol == protocol && one.field == field) {
                looks.key = one.key;
                if (protocol == "ip" || protocol == "ip6")
                    looks.implied.push_back(
                        family_match(protocol == "ip" ? Family::ipv4 : Family::ipv6));
                if (protocol == "tcp")
                    looks.implied.push_back(protocol_match(protocol_tcp));
                if (protocol == "icmp" || protocol == "icmpv6") {
                    looks.icmp = protocol == "icmp" ? protocol_icmp : protocol_icmp6;
                    looks.implied.push_back(protocol_match(looks.icmp));
                }
                return looks;
            }
        why = fmt::format("netctl has no '{} {}'", protocol, field);
        return std::nullopt;
    }

    static std::optional<Looks> meta(const std::string& key, std::string& why) {
        Looks looks;
        if (key == "iifname" || key == "iif")
            looks.at = Looks::At::interface_in;
        else if (key == "oifname" || key == "oif")
            looks.at = Looks::At::interface_out;
        else if (key == "pkttype")
            looks.at = Looks::At::packet_type;
        else if (key == "nfproto")
            looks.at = Looks::At::family;
        else if (key == "l4proto")
            looks.key = Key::proto;
        else if (key == "mark")
            looks.key = Key::mark;
        else if (key == "protocol")
            looks.key = Key::ether_type;
        else {
            why = fmt::format("netctl has no 'meta {}'", key);
            return std::nullopt;
        }
        return looks;
    }

    /// Flags or a mark: a number, a name, or several joined.
    static std::optional<std::uint32_t> bits_of(Key key, const Json& json) {
        if (const auto number = count_of(json))
            return *number <= info(key).max ? std::optional(static_cast<std::uint32_t>(*number))
                                            : std::nullopt;
        if (json.is_string()) {
            const std::uint32_t flag = key == Key::flags ? flag_of(text_of(json)) : 0;
            return flag != 0 ? std::optional(flag) : std::nullopt;
        }
        const Json& list = kind_of(json) == "|" ? json.begin().value() : json;
        if (!list.is_array() || list.size() > 8)
            return std::nullopt;
        std::uint32_t bits = 0;
        for (const Json& one : list) {
            const auto bit = one.is_array() ? std::nullopt : bits_of(key, one);
            if (!bit)
                return std::nullopt;
            bits |= *bit;
        }
        return bits;
    }

    /// The values that a right side names, in a list.
    std::vector<Json> values_of(const Json& right, std::string& why) const {
        if (right.is_string() && text_of(right).starts_with('@')) {
            const auto found = elements_.find(table_ + " " + text_of(right).substr(1));
            if (found == elements_.end() || !found->second.is_array()) {
                why = fmt::format("the set {} is not there", text_of(right));
                return {};
            }
            std::vector<Json> values;
            for (const Json& one : found->second) {
                const Json& element = member(one, "elem");
                values.push_back(element.is_null() ? one : member(element, "val"));
                if (!element.is_null() && !member(element, "timeout").is_null()) {
                    why = fmt::format("elements of the set {} run out", text_of(right));
                    return {};
                }
            }
            return values;
        }
        const Json& set = member(right, "set");
        if (set.is_array())
            return {set.begin(), set.end()};
        if (right.is_array())
            return {right.begin(), right.end()};
        return {right};
    }

    static std::optional<Range> range_of(const Looks& looks, const Json& value) {
        const auto number = [&](const Json& one) {
            if (const auto count = count_of(one))
                return *count <= info(looks.key).max ? count : std::nullopt;
            const std::string word = text_of(one);
            if (looks.key == Key::proto)
                return protocol_of(word);
            if (looks.key == Key::ether_type && (word == "ip" || word == "ip6"))
                return std::optional<std::uint64_t>(word == "ip" ? type_ipv4 : type_ipv6);
            return word.empty() ? std::nullopt : value_of(looks.key, word, looks.icmp);
        };
        const Json& range = member(value, "range");
        const bool is_range = range.is_array() && range.size() == 2;
        const auto low = number(is_range ? range[0] : value),
                   high = number(is_range ? range[1] : value);
        if (!low || !high || *low > *high)
            return std::nullopt;
        return Range{*low, *high};
    }

    static std::optional<std::vector<Prefix>> addresses_of(const Json& value) {
        const Json& prefix = member(value, "prefix");
        const Json& range = member(value, "range");
        if (prefix.is_object()) {
            const auto length = count_of(member(prefix, "len"));
            return length ? prefixes_of(fmt::format("{}/{}", text_of(prefix, "addr"), *length))
                          : std::nullopt;
        }
        if (range.is_array() && range.size() == 2)
            return prefixes_of(text_of(range[0]) + "-" + text_of(range[1]));
        return prefixes_of(text_of(value));
    }

    /// `left OP right` for what a key of netctl looks at.
    Meaning comparison(const Looks& looks, const std::string& op, const Json& right) {
        const std::string what = brief(right);
        Meaning unknown{{},
                        fmt::format("netctl has no '{} {} {}'", to_string(looks.key), op, what)};
        const KeyInfo& key = info(looks.key);
        const bool negated = op == "!=";
        const auto with_implied = [&](Match match) {
            std::vector<Match> all = looks.implied;
            all.push_back(std::move(match));
            return Meaning{{std::move(all)}, {}};
        };
        if (op != "==" && op != "in" && op != "!=" && op != "<" && op != ">" && op != "<=" &&
            op != ">=")
            return unknown;
        if (key.form == ValueForm::flags || key.form == ValueForm::mark)
            return masked(looks, op, right, unknown);
        if (op[0] == '<' || op[0] == '>') {
            const auto range = key.form == ValueForm::addresses || key.form == ValueForm::macs
                                   ? std::nullopt
                                   : range_of(looks, right);
            if (!range)
                return unknown;
            const std::uint64_t number = range->low;
            if ((op == "<" && number == 0) || (op == ">" && number == key.max))
                return unknown;
            const Range wanted = op == "<"    ? Range{0, number - 1}
                                 : op == "<=" ? Range{0, number}
                                 : op == ">"  ? Range{number + 1, key.max}
                                              : Range{number, key.max};
            return with_implied(ranges_match(looks.key, {wanted}));
        }
        if (right.is_string() && text_of(right).starts_with('@') && key.takes_set()) {
            const auto name = set_names_.find(table_ + " " + text_of(right).substr(1));
            if (name == set_names_.end())
                return {{}, fmt::format("the set {} is not taken", text_of(right))};
            Match match;
            match.key = looks.key;
            match.negated = negated;
            match.set = name->second;
            return with_implied(std::move(match));
        }
        std::string why;
        const std::vector<Json> values = values_of(right, why);
        if (!why.empty())
            return {{}, why};
        if (values.empty())
            return unknown;
        if (key.form == ValueForm::addresses) {
            std::vector<Prefix> prefixes;
            for (const Json& value : values) {
                const auto some = addresses_of(value);
                if (!some)
                    return unknown;
                prefixes.insert(prefixes.end(), some->begin(), some->end());
            }
            return with_implied(prefix_match(looks.key, std::move(prefixes), negated));
        }
        std::vector<Range> ranges;
        for (const Json& value : values) {
            auto range = range_of(looks, value);
            if (!range && looks.key == Key::icmp_code) {
                if (const auto code = icmp_code_of(text_of(value), looks.icmp))
                    range = Range{code->code, code->code};
            }
            if (!range)
                return unknown;
            ranges.push_back(*range);
        }
        return with_implied(ranges_match(looks.key, std::move(ranges), negated));
    }

    Meaning masked(const Looks& looks, const std::string& op, const Json& right,
                   const Meaning& unknown) const {
        const std::uint32_t all = looks.key == Key::flags ? 0xff : 0xffffffff;
        const auto made = [&](std::uint32_t value, std::uint32_t mask, bool negated) {
            Match match;
            match.key = looks.key;
            match.negated = negated;
            match.masked = Masked{value, mask};
            std::vector<Match> together = looks.implied;
            together.push_back(std::move(match));
            return together;
        };
        const std::uint32_t mask = looks.mask.value_or(all);
        const Json& set = member(right, "set");
        if (set.is_array()) {
            // Each of them is a value of its own: any, or none of them.
            Meaning meaning;
            if (op == "!=")
                meaning.alternatives.push_back({});
            for (const Json& one : set) {
                const auto bits = bits_of(looks.key, one);
                if (!bits || (*bits & ~mask) != 0)
                    return unknown;
                const auto match = made(*bits, mask, op == "!=");
                if (op == "!=")
                    meaning.alternatives[0].insert(meaning.alternatives[0].end(), match.begin(),
                                                   match.end());
                else
                    meaning.alternatives.push_back(match);
            }
            return meaning.alternatives.empty() ? unknown : meaning;
        }
        const auto bits = bits_of(looks.key, right);
        if (!bits)
            return unknown;
        if (op == "in") // any of these bits
            return {{made(0, *bits & mask, true)}, {}};
        if ((op != "==" && op != "!=") || (*bits & ~mask) != 0)
            return unknown;
        return {{made(*bits, mask, op == "!=")}, {}};
    }

    void read_match(const Json& what, ForeignRule& rule, Alternatives& alternatives) {
        const std::string op = text_of(what, "op");
        const Json &left = member(what, "left"), &right = member(what, "right");
        if (kind_of(left) == "concat")
            return concatenation(left.begin().value(), op, right, rule, alternatives);
        std::string why;
        const auto looks = looks_at(left, why);
        if (!looks)
            return rule.unknown.push_back(why);
        take(*looks, op, right, rule, alternatives);
    }

    /// Adds `looks OP right` to the rule, or why that cannot be.
    void take(const Looks& looks, const std::string& op, const Json& right, ForeignRule& rule,
              Alternatives& alternatives) {
        std::string why;
        const bool negated = op == "!=";
        const std::string unknown = fmt::format("netctl has no '{} {}' there", op, brief(right));
        if (looks.at != Looks::At::key && op != "==" && op != "in" && !negated)
            return rule.unknown.push_back(unknown);
        std::vector<std::string> words;
        if (looks.at != Looks::At::key) {
            for (const Json& value : values_of(right, why)) {
                if (!value.is_string())
                    return rule.unknown.push_back(unknown);
                words.push_back(text_of(value));
            }
            if (!why.empty())
                return rule.unknown.push_back(why);
            if (words.empty())
                return rule.unknown.push_back(unknown);
        }
        Meaning meaning;
        switch (looks.at) {
        case Looks::At::key: meaning = comparison(looks, op, right); break;
        case Looks::At::state: {
            std::uint8_t states = 0;
            for (const std::string& word : words) {
                if (state_of(word) == 0)
                    return rule.unknown.push_back(unknown);
                states |= state_of(word);
            }
            rule.states &= negated ? all_states & ~states : states;
            return;
        }
        case Looks::At::interface_in:
        case Looks::At::interface_out:
            rule.interfaces.push_back({looks.at == Looks::At::interface_out, negated, words});
            return;
        case Looks::At::family:
            if (words.size() != 1 || negated || (words[0] != "ipv4" && words[0] != "ipv6"))
                return rule.unknown.push_back(unknown);
            meaning.alternatives = {
                {family_match(words[0] == "ipv4" ? Family::ipv4 : Family::ipv6)}};
            break;
        case Looks::At::packet_type:
        case Looks::At::fib:
            meaning.alternatives = destinations(words, negated);
            if (meaning.alternatives.empty())
                meaning.why = unknown;
            break;
        }
        if (!meaning.why.empty())
            return rule.unknown.push_back(meaning.why);
        multiply(alternatives, meaning.alternatives, rule);
    }

    /// Each of the one with each of the other.
    static void multiply(Alternatives& alternatives, const Alternatives& more, ForeignRule& rule) {
        if (alternatives.size() * more.size() > most_alternatives)
            return rule.unknown.push_back(
                fmt::format("it stands for more than {} rules", most_alternatives));
        Alternatives product;
        for (const std::vector<Match>& one : alternatives)
            for (const std::vector<Match>& other : more) {
                product.push_back(one);
                product.back().insert(product.back().end(), other.begin(), other.end());
            }
        alternatives = std::move(product);
    }

    /// `ip saddr . tcp dport { 192.0.2.1 . 22 }`: each element is an alternative.
    void concatenation(const Json& parts, const std::string& op, const Json& right,
                       ForeignRule& rule, Alternatives& alternatives) {
        std::string why;
        const std::vector<Json> values = values_of(right, why);
        if (!why.empty())
            return rule.unknown.push_back(why);
        if (op == "!=" || values.empty() || !parts.is_array())
            return rule.unknown.push_back("netctl has no concatenation that is negated or empty");
        Alternatives all;
        for (const Json& value : values) {
            const Json& items = member(value, "concat");
            if (!items.is_array() || items.size() != parts.size() || all.size() > most_alternatives)
                return rule.unknown.push_back("a concatenation of other or too many parts");
            Alternatives together{{}};
            ForeignRule one;
            for (std::size_t i = 0; i < parts.size(); i++) {
                const auto looks = looks_at(parts[i], why);
                if (!looks)
                    return rule.unknown.push_back(why);
                if (looks->at != Looks::At::key)
                    return rule.unknown.push_back(
                        fmt::format("netctl has no {} in a concatenation", brief(parts[i])));
                take(*looks, "==", items[i], one, together);
            }
            if (!one.unknown.empty())
                return rule.unknown.push_back(one.unknown[0]);
            all.insert(all.end(), together.begin(), together.end());
        }
        multiply(alternatives, all, rule);
    }

    /// `tcp dport vmap { 22 : accept, 25 : jump mail }`: each element is a rule.
    void read_vmap(const Json& what, ForeignRule& rule, std::vector<ForeignRule>& made) {
        std::string why;
        const std::vector<Json> pairs = values_of(member(what, "data"), why);
        acts_ = true; // until all of it is read
        if (!why.empty() || pairs.size() > most_alternatives || pairs.empty() || !made.empty())
            return rule.unknown.push_back(why.empty() ? "a map that is empty or too large" : why);
        const Json& key = member(what, "key");
        for (const Json& pair : pairs) {
            ForeignRule one = rule;
            if (!pair.is_array() || pair.size() != 2 ||
                !read_verdict(pair[1], one.outcome, one.target))
                return rule.unknown.push_back(
                    fmt::format("netctl has no {} of a map", brief(pair)));
            const Json& element = member(pair[0], "elem");
            const Json& value = element.is_null() ? pair[0] : member(element, "val");
            Alternatives alternatives{{}};
            read_match(Json{{"op", "=="},
                            {"left", key},
                            {"right", kind_of(key) == "concat" ? Json{{"set", Json::array({value})}}
                                                               : value}},
                       one, alternatives);
            if (one.unknown.size() > rule.unknown.size())
                return rule.unknown.push_back(one.unknown.back());
            for (const std::vector<Match>& matches : alternatives) {
                ForeignRule each = one;
                each.matches.insert(each.matches.end(), matches.begin(), matches.end());
                made.push_back(std::move(each));
            }
        }
        acts_ = false;
    }

    const std::string& name_;
    Foreign& foreign_;
    std::map<std::string, Json> elements_;         ///< of sets and maps, by `FAMILY TABLE NAME`
    std::map<std::string, std::string> set_names_; ///< of those that are sets in netctl
    std::string table_;                            ///< of the rule that is read
    bool acts_ = false;                            ///< it has a statement that netctl has not
};

} // namespace

Result<> read_nft(const std::string& name, std::string_view text, Foreign& foreign) {
    return NftReader(name, foreign).read(text);
}

} // namespace netctl::host
