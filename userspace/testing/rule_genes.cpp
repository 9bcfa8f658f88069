// SPDX-License-Identifier: GPL-2.0-only
#include "testing/rule_genes.hpp"

#include <algorithm>
#include <random>
#include <string>
#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "testing/must.hpp"

namespace netctl::testing {

namespace {

constexpr std::array<GeneBounds, genes> all_bounds{{
    {"src", 0, 100},    {"dst", 0, 100},     {"sport", 0, 100},   {"dport", 0, 100},
    {"proto", 0, 100},  {"flags", 0, 60},    {"dscp", 0, 60},     {"len", 0, 60},
    {"vlan", 0, 60},    {"frag", 0, 30},     {"src_list", 1, 8},  {"dst_list", 1, 8},
    {"negated", 0, 30}, {"networks", 0, 10}, {"shortest", 4, 32}, {"lengths", 0, 28},
    {"ranges", 0, 100}, {"width", 1, 15},    {"values", 1, 13},
}};

class Writer {
  public:
    Writer(const RuleGenes& genes, Family family, std::uint64_t seed)
        : genes_(genes), family_(family), random_(seed) {
        for (std::uint64_t i = 0; i < std::uint64_t{1} << gene(Gene::networks); ++i)
            networks_.push_back(any_address());
    }

    std::string next() {
        std::string rule = side(Gene::src, Gene::src_list) + side(Gene::dst, Gene::dst_list);
        const bool ports = has(Gene::sport), to_ports = has(Gene::dport);
        if (ports)
            rule += number("sport", 65535);
        if (to_ports)
            rule += number("dport", 65535);
        if (has(Gene::flags))
            rule += fmt::format("flags {}/{} ", below(4), 3 + 16 * below(4));
        else if (has(Gene::proto) || ports || to_ports)
            rule += below(3) ? "proto tcp " : "proto udp ";
        if (has(Gene::dscp))
            rule += fmt::format("dscp {} ", value() % 64);
        if (has(Gene::len))
            rule += number("len", 1500);
        if (has(Gene::vlan))
            rule += fmt::format("vlan {} ", value() % 4096);
        if (has(Gene::frag))
            rule += below(2) ? "frag any " : "frag none ";
        return rule + (below(2) ? "pass" : "drop");
    }

  private:
    unsigned gene(Gene which) const { return genes_[static_cast<std::size_t>(which)]; }
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    bool has(Gene which) { return below(100) < gene(which); }
    /// One of as many as there are to be different ones, anywhere among the numbers of 16 bits.
    std::uint64_t value() {
        return (below(std::uint64_t{1} << gene(Gene::values)) + 1) * 0x9e3779b97f4a7c15ull >> 48;
    }

    std::string number(std::string_view key, std::uint64_t highest) {
        const std::uint64_t low = value() % (highest + 1);
        if (!has(Gene::ranges))
            return fmt::format("{} {} ", key, low);
        const std::uint64_t width = 1 + value() % (std::uint64_t{1} << gene(Gene::width));
        return fmt::format("{} {}-{} ", key, low, std::min(highest, low + width));
    }

    Address any_address() {
        Address address;
        address.family = family_;
        for (unsigned i = 0; i < address.bits() / 8; ++i)
            address.bytes[i] = static_cast<std::uint8_t>(random_());
        if (family_ == Family::ipv6) // of one provider
            std::copy_n(std::array<std::uint8_t, 4>{0x20, 0x01, 0x0d, 0xb8}.begin(), 4,
                        address.bytes.begin());
        return address;
    }

    std::string prefix() {
        unsigned length = std::min<unsigned>(
            32, gene(Gene::shortest) + static_cast<unsigned>(below(gene(Gene::lengths) + 1)));
        // Hosts are hosts, and networks come behind the provider's bits.
        if (family_ == Family::ipv6)
            length = length == 32 ? 128 : 32 + length;
        Address address = networks_[below(networks_.size())];
        const Address other = any_address();
        // Some of the network's bits, and any behind them: so prefixes nest.
        for (auto bit = static_cast<unsigned>(below(length + 1)); bit < address.bits(); ++bit) {
            const auto mask = static_cast<std::uint8_t>(0x80 >> bit % 8);
            std::uint8_t& byte = address.bytes[bit / 8];
            byte = static_cast<std::uint8_t>((byte & ~mask) |
                                             (bit < length ? other.bytes[bit / 8] & mask : 0));
        }
        return fmt::format("{}/{}", address.to_string(), length);
    }

    std::string side(Gene key, Gene list) {
        if (!has(key))
            return "";
        std::vector<std::string> prefixes;
        for (std::uint64_t i = 0, most = 1 + below(gene(list)); i < most; ++i)
            prefixes.push_back(prefix());
        std::ranges::sort(prefixes);
        prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
        return fmt::format("{} {}{{{}}} ", bounds_of(static_cast<std::size_t>(key)).name,
                           has(Gene::negated) ? "not " : "", fmt::join(prefixes, ", "));
    }

    const RuleGenes& genes_;
    Family family_;
    std::mt19937_64 random_;
    std::vector<Address> networks_;
};

} // namespace

const GeneBounds& bounds_of(std::size_t gene) {
    return all_bounds[gene];
}

std::vector<Rule> rules_of(const RuleGenes& genes, Family family, std::size_t count,
                           std::uint64_t seed) {
    Writer writer(genes, family, seed);
    std::unordered_set<std::string> seen;
    std::vector<Rule> rules;
    for (std::size_t tries = 0; rules.size() < count && tries < 4 * count; ++tries)
        if (std::string text = writer.next(); seen.insert(text).second)
            rules.push_back(must(parse_rule(text, Hook::xdp), text));
    return rules;
}

} // namespace netctl::testing
