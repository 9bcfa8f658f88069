// SPDX-License-Identifier: GPL-2.0-only
#include "testing/rule_families.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "testing/must.hpp"
#include "testing/rule_genes.hpp"

namespace netctl::testing {

namespace {

constexpr std::array<const char*, rule_families> names{"blocks", "zones",   "hosting", "block-list",
                                                       "pods",   "carrier", "hunted"};

/// Of the set that read the most cache lines, 51, in ten minutes' hunt among sets of 3,000 rules, with seed 7.
constexpr RuleGenes hunted_genes{55, 6, 100, 16, 2, 9, 50, 50, 1, 19, 7, 3, 16, 6, 9, 26, 36, 8, 8};

/// Writes rules in the language: what a user would have written is what is measured.
class Writer {
  public:
    Writer(Family family, std::size_t count, std::uint64_t seed)
        : random_(seed), family_(family), count_(count) {
        for (int i = 0; i < 300; ++i)
            blocks_.push_back({any_address(), static_cast<std::uint8_t>(width())});
    }

    std::string next(RuleFamily kind) {
        switch (kind) {
        case RuleFamily::blocks: return of_blocks();
        case RuleFamily::zones: return of_zones();
        case RuleFamily::hosting: return of_hosting();
        case RuleFamily::block_list: return of_block_list();
        case RuleFamily::pods: return of_pods();
        case RuleFamily::carrier: return of_carrier();
        case RuleFamily::hunted: break; // by its genes
        }
        return {};
    }

  private:
    using Random = std::mt19937_64;

    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    bool percent(unsigned chance) { return below(100) < chance; }
    template <class T> const T& pick(const std::vector<T>& from) {
        return from[below(from.size())];
    }
    unsigned width() const { return family_ == Family::ipv4 ? 32 : 128; }
    /// A length of IPv4 in the other family, where hosts are hosts and networks come behind 32 bits.
    unsigned length(unsigned ipv4) const {
        return family_ == Family::ipv4 ? ipv4 : ipv4 == 32 ? 128 : ipv4 == 0 ? 0 : 32 + ipv4;
    }
    Address any_address() {
        Address address;
        address.family = family_;
        for (unsigned i = 0; i < width() / 8; ++i)
            address.bytes[i] = static_cast<std::uint8_t>(random_());
        address.bytes[0] = family_ == Family::ipv4
                               ? static_cast<std::uint8_t>(2 + below(120))
                               : static_cast<std::uint8_t>(0x20 | (address.bytes[0] & 0x1f));
        if (family_ == Family::ipv6) // one provider's
            std::copy_n(std::array<std::uint8_t, 4>{0x20, 0x01, 0x0d, 0xb8}.begin(), 4,
                        address.bytes.begin());
        return address;
    }
    static Prefix cut(Address address, unsigned length) {
        for (unsigned i = length; i < address.bits(); ++i)
            address.bytes[i / 8] &= static_cast<std::uint8_t>(~(0x80 >> i % 8));
        return {address, static_cast<std::uint8_t>(length)};
    }
    /// Somewhere within a prefix.
    Address inside(const Prefix& prefix) {
        Address address = any_address();
        for (unsigned i = 0; i < prefix.length; ++i) {
            const auto bit = static_cast<std::uint8_t>(0x80 >> i % 8);
            address.bytes[i / 8] = static_cast<std::uint8_t>((address.bytes[i / 8] & ~bit) |
                                                             (prefix.address.bytes[i / 8] & bit));
        }
        return address;
    }
    Prefix nested(const std::vector<unsigned>& lengths) {
        const Prefix& block = pick(blocks_);
        return cut(
            inside(cut(block.address, length(pick(std::vector<unsigned>{8, 12, 16, 20, 24})))),
            length(pick(lengths)));
    }
    static std::string list(std::vector<std::string> values) {
        std::ranges::sort(values);
        values.erase(std::unique(values.begin(), values.end()), values.end());
        return values.size() == 1 ? values.front() : fmt::format("{{{}}}", fmt::join(values, ", "));
    }
    static std::string side(const char* key, const Prefix& prefix) {
        return prefix.length == 0 ? "" : fmt::format("{} {} ", key, prefix.to_string());
    }
    std::string port(const char* key, unsigned wild) {
        static const std::vector<unsigned> known{22,   25,   53,   80,   110,  123, 143,
                                                 161,  443,  445,  514,  993,  995, 1433,
                                                 1521, 3306, 3389, 5432, 8080, 9100};
        if (percent(wild))
            return "";
        const std::uint64_t kind = below(100);
        if (kind < 60)
            return fmt::format("{} {} ", key, pick(known));
        if (kind < 80)
            return fmt::format("{} 1024-65535 ", key);
        const std::uint64_t low = 1 + below(60000);
        return fmt::format("{} {}-{} ", key, low, low + 1 + below(5000));
    }
    const char* action() { return percent(60) ? "pass" : "drop"; }

    std::string of_blocks() {
        const std::uint64_t kind = below(100);
        const char* proto = kind < 60   ? "proto tcp "
                            : kind < 85 ? "proto udp "
                            : kind < 90 ? (family_ == Family::ipv4 ? "proto icmp " : "proto icmp6 ")
                                        : "";
        const bool ports = kind < 85;
        const Prefix src = nested({8, 16, 20, 24, 24, 28, 32, 32, 32}),
                     dst = nested({0, 8, 16, 20, 24, 24, 27, 32, 32, 32});
        return side("src", src) + side("dst", dst) + (ports ? port("sport", 90) : "") +
               (ports ? port("dport", 20) : "") + proto + action();
    }

    struct Zone {
        std::vector<std::string> prefixes;
    };

    std::string of_zones() {
        if (zones_.empty()) {
            const std::size_t zones = std::max<std::size_t>(8, count_ / 40);
            for (std::size_t i = 0; i < zones; ++i) {
                Zone zone;
                for (std::size_t j = 0, most = 1 + below(6); j < most; ++j)
                    zone.prefixes.push_back(nested({12, 16, 20, 22, 24, 26, 28, 32}).to_string());
                zones_.push_back(std::move(zone));
            }
            for (int i = 0; i < 120; ++i) {
                const std::uint64_t kind = below(10);
                std::string service = kind < 8 ? "proto tcp " : "proto udp ";
                if (kind == 0)
                    service += fmt::format("dport {{{}, {}, {}}} ", 1 + below(1000),
                                           1001 + below(9000), 10001 + below(50000));
                else if (kind == 1)
                    service += fmt::format("dport {}-{} ", 1024 + below(500), 2000 + below(60000));
                else
                    service += fmt::format("dport {} ", 1 + below(10000));
                if (kind == 2)
                    service += "flags syn/syn,ack ";
                services_.push_back(service);
            }
        }
        std::string rule = fmt::format("src {} dst {} ", list(pick(zones_).prefixes),
                                       list(pick(zones_).prefixes)) +
                           pick(services_);
        if (percent(3))
            rule += fmt::format("vlan {} ", 100 + below(6));
        if (percent(2))
            rule += fmt::format("dscp {} ", 8 * below(8));
        return rule + action();
    }

    std::string of_hosting() {
        if (blocks_.size() > 8)
            blocks_.resize(8); // a provider's own networks
        const Prefix host = cut(inside(cut(pick(blocks_).address, length(16))), width());
        const std::uint64_t kind = below(10);
        std::string rule = kind < 2 ? side("src", nested({16, 20, 24, 32})) : "";
        rule += side("dst", host);
        if (kind < 8)
            rule += fmt::format("dport {} proto tcp ",
                                pick(std::vector<unsigned>{22, 25, 80, 443, 587, 993, 3306, 8443}));
        else if (kind == 8)
            rule += "dport {53, 123, 443} proto udp ";
        return rule + action();
    }

    std::string of_block_list() {
        Address address = any_address();
        address.bytes[family_ == Family::ipv4 ? 1 : 4] = static_cast<std::uint8_t>(random_());
        static const std::vector<unsigned> lengths{16, 19, 20, 21, 22, 22, 23,
                                                   24, 24, 24, 24, 32, 32};
        return side("src", cut(address, length(pick(lengths)))) + "drop";
    }

    std::string of_pods() {
        if (pods_.empty()) {
            // A node's pods are neighbours; a label has some pods on every node.
            const std::size_t labels = std::max<std::size_t>(4, count_ / 400);
            for (std::size_t i = 0; i < labels; ++i) {
                std::vector<std::string> pods;
                for (int j = 0; j < 20; ++j) {
                    Address pod = any_address();
                    const std::size_t node_byte = family_ == Family::ipv4 ? 2 : 14;
                    if (family_ == Family::ipv4) {
                        pod.bytes[0] = 10;
                        pod.bytes[1] = 244;
                    } else {
                        std::fill(pod.bytes.begin() + 4, pod.bytes.begin() + 14, 0);
                    }
                    pod.bytes[node_byte] = static_cast<std::uint8_t>(below(64));
                    pod.bytes[node_byte + 1] = static_cast<std::uint8_t>(below(250));
                    pods.push_back(pod.to_string());
                }
                pods_.push_back(std::move(pods));
            }
        }
        return fmt::format(
            "src {} dst {} dport {} proto {} pass", pick(pick(pods_)), pick(pick(pods_)),
            pick(std::vector<unsigned>{80, 443, 5432, 6379, 8080, 9090, 9100, 50051}),
            percent(95) ? "tcp" : "udp");
    }

    std::string of_carrier() {
        std::string rule;
        if (percent(70))
            rule += side("src", nested({8, 12, 16, 19, 22, 24}));
        if (percent(80))
            rule += side("dst", nested({12, 16, 20, 24, 30, 32}));
        const std::uint64_t kind = below(10);
        if (kind == 0)
            return rule + "frag " + (percent(50) ? "later " : "any ") + action();
        if (kind < 7) {
            const std::uint64_t low = below(64000);
            rule += fmt::format("dport {}-{} ", low, low + 1 + below(65535 - low));
            if (percent(30)) {
                const std::uint64_t from = below(64000);
                rule += fmt::format("sport {}-{} ", from, from + 1 + below(65535 - from));
            }
        }
        if (kind < 5 && percent(40))
            rule += std::string("flags ") +
                    pick(std::vector<std::string>{"syn/syn,ack ", "ack/ack ", "rst/rst ",
                                                  "fin,syn/fin,syn ", "syn,ack/syn,ack "});
        else
            rule += kind < 5 ? "proto tcp " : kind < 9 ? "proto udp " : "";
        if (percent(25))
            rule += fmt::format("dscp {} ", below(64));
        return rule + action();
    }

    Random random_;
    Family family_;
    std::size_t count_;
    std::vector<Prefix> blocks_;
    std::vector<Zone> zones_;
    std::vector<std::string> services_;
    std::vector<std::vector<std::string>> pods_;
};

} // namespace

const char* to_string(RuleFamily family) {
    return names[static_cast<std::size_t>(family)];
}

std::optional<RuleFamily> rule_family(std::string_view name) {
    for (int i = 0; i < rule_families; ++i)
        if (name == names[static_cast<std::size_t>(i)])
            return static_cast<RuleFamily>(i);
    return std::nullopt;
}

std::vector<Rule> family_rules(RuleFamily family, Family addresses, std::size_t count,
                               std::uint64_t seed) {
    if (family == RuleFamily::hunted)
        return rules_of(hunted_genes, addresses, count, seed);
    Writer writer(addresses, count, seed);
    std::unordered_set<std::string> seen;
    std::vector<Rule> rules;
    while (rules.size() < count)
        if (std::string text = writer.next(family); seen.insert(text).second)
            rules.push_back(must(parse_rule(text, Hook::xdp)));
    return rules;
}

} // namespace netctl::testing
