// SPDX-License-Identifier: GPL-2.0-only
//
// Zones of firewalld: firewalld.zone(5), firewalld.richlanguage(5).
#include <algorithm>
#include <memory>

#include <expat.h>
#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "host/import/foreign.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

struct XmlNode {
    std::string name;
    std::map<std::string, std::string> attributes;
    std::vector<XmlNode> children;
    std::size_t line = 0;

    std::string get(const char* attribute) const {
        const auto found = attributes.find(attribute);
        return found == attributes.end() ? std::string() : found->second;
    }
};

/// What expat calls back with.
struct XmlReading {
    XML_Parser parser = nullptr;
    XmlNode root{};
    std::vector<XmlNode*> open{};
    std::size_t nodes = 0;
};

// Newer versions of expat have another of 64 bits, and deprecate this one, which all have: texts here are short.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
std::size_t line_of(XML_Parser parser) {
    return XML_GetCurrentLineNumber(parser);
}
#pragma GCC diagnostic pop

constexpr std::size_t deepest_xml = 16, most_xml = 100'000;

void XMLCALL begin_element(void* data, const XML_Char* name, const XML_Char** attributes) {
    auto& reading = *static_cast<XmlReading*>(data);
    if (reading.open.size() >= deepest_xml || ++reading.nodes > most_xml) {
        XML_StopParser(reading.parser, XML_FALSE);
        return;
    }
    XmlNode node;
    node.name = name;
    node.line = line_of(reading.parser);
    for (; *attributes != nullptr; attributes += 2)
        node.attributes[attributes[0]] = attributes[1];
    // Children come one behind the other, so that pointers to those that are open stay right.
    std::vector<XmlNode>& siblings = reading.open.back()->children;
    siblings.push_back(std::move(node));
    reading.open.push_back(&siblings.back());
}

void XMLCALL end_element(void* data, const XML_Char*) {
    static_cast<XmlReading*>(data)->open.pop_back();
}

/// Nobody needs a document type here, and entities are how parsers are worn down.
void XMLCALL begin_doctype(void* data, const XML_Char*, const XML_Char*, const XML_Char*, int) {
    XML_StopParser(static_cast<XmlReading*>(data)->parser, XML_FALSE);
}

Result<XmlNode> read_xml(const std::string& name, std::string_view text) {
    const std::unique_ptr<std::remove_pointer_t<XML_Parser>, decltype(&XML_ParserFree)> parser(
        XML_ParserCreate(nullptr), XML_ParserFree);
    if (!parser)
        return Error::system(ENOMEM, "cannot read XML");
    XmlReading reading{parser.get()};
    reading.open.push_back(&reading.root);
    XML_SetUserData(parser.get(), &reading);
    XML_SetElementHandler(parser.get(), begin_element, end_element);
    XML_SetStartDoctypeDeclHandler(parser.get(), begin_doctype);
    constexpr std::size_t longest = 16'000'000;
    if (text.size() > longest || XML_Parse(parser.get(), text.data(), static_cast<int>(text.size()),
                                           XML_TRUE) != XML_STATUS_OK)
        return Error::usage(Text::format("{}:{}: {}", name, line_of(parser.get()),
                                         XML_ErrorString(XML_GetErrorCode(parser.get()))));
    if (reading.root.children.size() != 1 || reading.root.children[0].name != "zone")
        return Error::usage(Text::format("{} is no zone of firewalld", name));
    return std::move(reading.root.children[0]);
}

struct Service {
    std::string_view name;
    std::string_view ports;                ///< PORT/PROTOCOL, with blanks between
    std::string_view dst4 = {}, dst6 = {}; ///< where its packets go, if not anywhere
};

// Facts of firewalld's own definitions.
constexpr Service services[] = {
    {"ssh", "22/tcp"},
    {"dhcpv6-client", "546/udp", "", "fe80::/64"},
    {"mdns", "5353/udp", "224.0.0.251", "ff02::fb"},
    {"http", "80/tcp"},
    {"https", "443/tcp"},
    {"http3", "443/udp"},
    {"dns", "53/tcp 53/udp"},
    {"dhcp", "67/udp"},
    {"ntp", "123/udp"},
    {"cockpit", "9090/tcp"},
    {"smtp", "25/tcp"},
    {"smtps", "465/tcp"},
    {"smtp-submission", "587/tcp"},
    {"imap", "143/tcp"},
    {"imaps", "993/tcp"},
    {"pop3", "110/tcp"},
    {"pop3s", "995/tcp"},
    {"nfs", "2049/tcp"},
    {"ipp-client", "631/udp"},
    {"ipp", "631/tcp 631/udp"},
    {"postgresql", "5432/tcp"},
    {"mysql", "3306/tcp"},
    {"redis", "6379/tcp"},
    {"ldap", "389/tcp"},
    {"ldaps", "636/tcp"},
    {"wireguard", "51820/udp"},
    {"openvpn", "1194/udp"},
    {"kube-apiserver", "6443/tcp"},
    {"syslog", "514/udp"},
    {"snmp", "161/tcp 161/udp"},
    {"vnc-server", "5900-5903/tcp"},
    {"rdp", "3389/tcp"},
    {"prometheus", "9090/tcp"},
    {"grafana", "3000/tcp"},
    {"kdeconnect", "1714-1764/tcp 1714-1764/udp"},
};

/// firewalld asks what denies before what allows, and rules with a priority before or behind both.
enum class Turn : std::uint8_t { deny, allow };

class ZoneReader {
  public:
    ZoneReader(const std::string& name, Foreign& foreign) : name_(name), foreign_(foreign) {}

    Result<> read(std::string_view text) {
        const XmlNode zone = NETCTL_TRY(read_xml(name_, text));
        target_ = zone.get("target");
        const bool known = target_.empty() || target_ == "default" || target_ == "ACCEPT" ||
                           target_ == "DROP" || target_ == "%%REJECT%%";
        if (!known)
            return Error::usage(Text::format("{}: there is no target '{}'", name_, target_));
        for (const XmlNode& node : zone.children)
            read_node(node);
        write();
        return {};
    }

  private:
    ForeignRule new_rule(const XmlNode& node, std::string text) const {
        ForeignRule rule;
        rule.place = fmt::format("{}:{}", name_, node.line);
        rule.text = std::move(text);
        return rule;
    }
    void put(Turn turn, const ForeignRule& rule, const Alternatives& alternatives) {
        for (const std::vector<Match>& matches : alternatives) {
            ForeignRule one = rule;
            one.matches.insert(one.matches.end(), matches.begin(), matches.end());
            (turn == Turn::deny ? deny_ : allow_).push_back(std::move(one));
        }
    }
    void miss(const XmlNode& node, std::string reason, std::uint8_t effect) {
        foreign_.not_taken.push_back(
            {fmt::format("{}:{}", name_, node.line), node.name, std::move(reason), effect});
    }

    void read_node(const XmlNode& node) {
        const std::string& is = node.name;
        if (is == "short" || is == "description")
            return;
        if (is == "interface") {
            interfaces_.push_back(node.get("name"));
        } else if (is == "source") {
            ForeignRule rule = new_rule(node, "source");
            read_source(node, Key::src, rule);
            sources_.push_back(std::move(rule));
        } else if (is == "service" || is == "port" || is == "protocol" || is == "source-port") {
            ForeignRule rule = new_rule(node, is + " " + element_text(node));
            rule.outcome = Outcome::pass;
            const Alternatives meaning = element(node, rule);
            put(Turn::allow, rule, meaning);
        } else if (is == "icmp-block") {
            ForeignRule rule = new_rule(node, is + " " + element_text(node));
            rule.outcome = Outcome::reject;
            const Alternatives meaning = element(node, rule);
            put(Turn::deny, rule, meaning);
        } else if (is == "rule") {
            read_rich(node);
        } else if (is == "masquerade" || is == "forward-port") {
            miss(node, "netctl does not translate addresses: leave them where they are",
                 effect_none);
        } else if (is == "forward") {
            miss(node, "what is routed is judged where it arrives", effect_none);
        } else {
            miss(node, "netctl has no such element", effect_weaker | effect_cuts);
        }
    }

    static std::string element_text(const XmlNode& node) {
        for (const char* attribute : {"name", "value"})
            if (!node.get(attribute).empty())
                return node.get(attribute);
        return node.get("port") + "/" + node.get("protocol");
    }

    static std::optional<std::vector<Match>> port(Key key, std::string_view ports,
                                                  std::string_view protocol) {
        const std::size_t dash = ports.find('-');
        const auto low = plain_number(ports.substr(0, dash)),
                   high = dash == ports.npos ? low : plain_number(ports.substr(dash + 1)),
                   number = protocol_of(protocol);
        if (!low || !high || !number || *low > *high || *high > 65535)
            return std::nullopt;
        return std::vector<Match>{ranges_match(Key::proto, {{*number, *number}}),
                                  ranges_match(key, {{*low, *high}})};
    }

    /// What a service, a port or the like matches; what cannot be read is said in the rule.
    static Alternatives element(const XmlNode& node, ForeignRule& rule) {
        const std::string& is = node.name;
        const auto unknown = [&](std::string why) {
            rule.unknown.push_back(std::move(why));
            return Alternatives{{}};
        };
        if (is == "port" || is == "source-port") {
            const auto match = port(is == "port" ? Key::dport : Key::sport, node.get("port"),
                                    node.get("protocol"));
            return match ? Alternatives{*match} : unknown("netctl cannot read its port");
        }
        if (is == "protocol") {
            const auto number = protocol_of(node.get("value"));
            return number ? Alternatives{{ranges_match(Key::proto, {{*number, *number}})}}
                          : unknown("netctl knows no such protocol");
        }
        if (is == "icmp-block" || is == "icmp-type") {
            Alternatives all;
            for (const std::uint8_t protocol : {protocol_icmp, protocol_icmp6})
                if (const auto type = icmp_type_of(node.get("name"), protocol))
                    all.push_back({ranges_match(Key::proto, {{protocol, protocol}}),
                                   ranges_match(Key::icmp_type, {{*type, *type}})});
            return all.empty() ? unknown("netctl knows no such type of ICMP") : all;
        }
        const auto service =
            std::find_if(std::begin(services), std::end(services),
                         [&](const Service& one) { return one.name == node.get("name"); });
        if (service == std::end(services))
            return unknown("netctl does not know this service: its ports say the same");
        Alternatives all;
        for (std::string_view rest = service->ports; !rest.empty();) {
            const std::size_t end = std::min(rest.find(' '), rest.size());
            const std::string_view one = rest.substr(0, end);
            rest.remove_prefix(std::min(end + 1, rest.size()));
            const std::size_t slash = one.find('/');
            const std::vector<Match> match =
                port(Key::dport, one.substr(0, slash), one.substr(slash + 1)).value();
            if (service->dst4.empty() && service->dst6.empty())
                all.push_back(match);
            for (const std::string_view target : {service->dst4, service->dst6})
                if (!target.empty()) {
                    all.push_back(match);
                    all.back().push_back(prefix_match(Key::dst, prefixes_of(target).value()));
                }
        }
        return all;
    }

    /// `<source address="…" invert="true"/>`, of a zone or of a rule; `<destination …/>`.
    void read_source(const XmlNode& node, Key key, ForeignRule& rule) const {
        const std::string address = node.get("address"), mac = node.get("mac"),
                          set = node.get("ipset");
        const bool inverted = node.get("invert") == "true" || node.get("invert") == "yes";
        const auto prefixes = prefixes_of(address);
        const auto number = value_of(Key::ether_src, mac, 0);
        if (!address.empty() && prefixes) {
            rule.matches.push_back(prefix_match(key, *prefixes, inverted));
        } else if (address.empty() && set.empty() && key == Key::src && number) {
            rule.matches.push_back(ranges_match(Key::ether_src, {{*number, *number}}, inverted));
        } else if (address.empty() && mac.empty() && foreign_.sets.contains(set_name_of(set))) {
            Match match;
            match.key = key;
            match.negated = inverted;
            match.set = set_name_of(set);
            rule.matches.push_back(std::move(match));
        } else {
            rule.unknown.push_back(
                fmt::format("netctl cannot read its {}{}", node.name,
                            set.empty() ? "" : ": give what `ipset save` prints as well"));
        }
    }

    void read_rich(const XmlNode& node) {
        ForeignRule rule = new_rule(node, "rule");
        Alternatives meaning{{}};
        if (const std::string family = node.get("family"); family == "ipv4" || family == "ipv6")
            rule.matches.push_back(family_match(family == "ipv4" ? Family::ipv4 : Family::ipv6));
        const std::string priority = node.get("priority");
        if (!priority.empty() && priority != "0")
            rule.unknown.push_back("netctl does not read rules with a priority");
        for (const XmlNode& child : node.children) {
            const std::string& is = child.name;
            if (is == "source" || is == "destination") {
                read_source(child, is == "source" ? Key::src : Key::dst, rule);
            } else if (is == "accept" || is == "drop" || is == "reject") {
                rule.outcome = is == "accept" ? Outcome::pass
                               : is == "drop" ? Outcome::drop
                                              : Outcome::reject;
                for (const XmlNode& more : child.children)
                    rule.unknown.push_back(
                        fmt::format("netctl does not read '{}' there", more.name));
            } else if (is == "log" || is == "nflog") {
                rule.log = true;
            } else if (is == "audit") {
            } else if (is == "service" || is == "port" || is == "protocol" || is == "source-port" ||
                       is == "icmp-block" || is == "icmp-type") {
                meaning = element(child, rule);
                rule.text += " " + is + " " + element_text(child);
                if (is == "icmp-block")
                    rule.outcome = Outcome::reject;
            } else {
                rule.unknown.push_back(fmt::format("netctl has no '{}' there", is));
            }
        }
        const Turn turn = rule.outcome == Outcome::drop || rule.outcome == Outcome::reject
                              ? Turn::deny
                              : Turn::allow;
        put(turn, rule, meaning);
    }

    /// The zone as a chain, which the one of all zones calls.
    void write() {
        constexpr const char* table = "firewalld";
        if (foreign_.find(table, "INPUT") == nullptr) {
            ForeignChain all;
            all.table = table;
            all.name = "INPUT";
            all.type = "filter";
            all.hook = ForeignHook::input;
            ForeignRule established;
            established.place = "firewalld";
            established.text = "what it has in front of all zones";
            established.outcome = Outcome::pass;
            established.states = state_established | state_related;
            all.rules.push_back(established);
            foreign_.chains.push_back(std::move(all));
        }
        ForeignChain zone;
        zone.table = table;
        zone.name = name_;
        while (foreign_.find(table, zone.name) != nullptr)
            zone.name += "'";
        const std::string chain = zone.name;
        zone.rules = std::move(deny_);
        zone.rules.insert(zone.rules.end(), allow_.begin(), allow_.end());
        ForeignRule last;
        last.place = name_;
        last.text = target_.empty() ? "target default" : "target " + target_;
        if (target_ != "ACCEPT" && target_ != "DROP")
            for (const std::uint8_t protocol : {protocol_icmp, protocol_icmp6}) {
                ForeignRule icmp = last;
                icmp.outcome = Outcome::pass;
                icmp.matches = {ranges_match(Key::proto, {{protocol, protocol}})};
                zone.rules.push_back(std::move(icmp));
            }
        last.outcome = target_ == "ACCEPT" ? Outcome::pass
                       : target_ == "DROP" ? Outcome::drop
                                           : Outcome::reject;
        zone.rules.push_back(last);
        foreign_.chains.push_back(std::move(zone));
        ForeignChain& all = *std::find_if(
            foreign_.chains.begin(), foreign_.chains.end(),
            [&](const ForeignChain& one) { return one.table == table && one.name == "INPUT"; });
        ForeignRule call;
        call.place = name_;
        call.outcome = Outcome::leap;
        call.target = chain;
        // Zones of sources are asked before those of interfaces; one with neither is for all the rest.
        const auto at =
            std::find_if(all.rules.begin(), all.rules.end(), [](const ForeignRule& one) {
                return one.outcome == Outcome::leap && one.matches.empty();
            });
        std::vector<ForeignRule> calls;
        for (ForeignRule source : sources_) {
            source.outcome = Outcome::leap;
            source.target = chain;
            calls.push_back(std::move(source));
        }
        all.rules.insert(at, calls.begin(), calls.end());
        if (!interfaces_.empty()) {
            call.interfaces = {{false, false, interfaces_}};
            const auto rest =
                std::find_if(all.rules.begin(), all.rules.end(), [](const ForeignRule& one) {
                    return one.outcome == Outcome::leap && one.matches.empty() &&
                           one.interfaces.empty();
                });
            all.rules.insert(rest, call);
        } else if (sources_.empty()) {
            all.rules.push_back(call);
        }
    }

    const std::string& name_;
    Foreign& foreign_;
    std::string target_;
    std::vector<std::string> interfaces_;
    std::vector<ForeignRule> sources_, deny_, allow_;
};

} // namespace

Result<> read_firewalld(const std::string& name, std::string_view text, Foreign& foreign) {
    return ZoneReader(name, foreign).read(text);
}

} // namespace netctl::host
