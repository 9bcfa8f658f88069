// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/set_uses.hpp"

#include <algorithm>
#include <string>

#include <fmt/format.h>

namespace netctl::datapath {

namespace {

Result<> fill_set(const FindMap& find, const std::string& outer_name, const bpf::RawMap& inner,
                  std::uint32_t index) {
    const bpf::RawMap outer = NETCTL_TRY(find(outer_name));
    const int fd = inner.fd();
    return outer.update(&index, &fd);
}

} // namespace

Result<Set> open_used_set(const Root& root, const classifier::SetUse& use) {
    Set set = NETCTL_TRY(Set::open(root, use.set));
    const bool on_port = use.key == Key::sport || use.key == Key::dport;
    if (on_port != (set.type() == SetType::port))
        return Error::usage(fmt::format("set '{}' holds {}, and a rule asks it about {}", use.set,
                                        set.type() == SetType::port ? "ports" : "addresses",
                                        to_string(use.key)),
                            on_port ? "sport and dport take sets of type port"
                                    : "src and dst take sets of type host, cidr or name");
    return set;
}

Result<> place_set(const FindMap& find, const Set& set, std::uint32_t index) {
    if (set.type() == SetType::port)
        return fill_set(find, "set_port", set.ports(), index);
    const std::string form = set.type() == SetType::cidr ? "set_cidr" : "set_host";
    NETCTL_TRY(fill_set(find, form + "4", set.addresses(Family::ipv4), index));
    return fill_set(find, form + "6", set.addresses(Family::ipv6), index);
}

Result<OpenedSets> open_sets(const Root& root, const std::vector<classifier::SetUse>& set_uses) {
    OpenedSets opened;
    for (const classifier::SetUse& use : set_uses) {
        Set set = NETCTL_TRY(open_used_set(root, use));
        nc_set_use entry{};
        entry.field = static_cast<__u8>(use.key);
        entry.type = static_cast<__u8>(set.type());
        entry.number = set.number();
        opened.uses.push_back(entry);
        opened.sets.push_back(std::move(set));
    }
    return opened;
}

Result<std::uint8_t> place_of_over(const Rule& rule, const classifier::SetUse& use,
                                   const classifier::Compiled& compiled, const OpenedSets& opened) {
    const auto found = std::find(compiled.set_uses.begin(), compiled.set_uses.end(), use);
    const auto place = static_cast<std::size_t>(found - compiled.set_uses.begin());
    const Set& set = opened.sets[place];
    const Accounts& per = rule.limit->per;
    if (set.type() == SetType::name)
        return Error::usage(
            fmt::format("'over add @{}': the set gets its addresses from names", use.set),
            "a set of type host or cidr takes them from rules");
    if (set.type() != SetType::cidr && (per.ipv4_bits != 32 || per.ipv6_bits != 128))
        return Error::usage(
            fmt::format("'over add @{}': the set holds addresses, and the limit is one of networks",
                        use.set),
            "a set of type cidr holds networks");
    return static_cast<std::uint8_t>(place);
}

Result<> fill_sets(const bpf::Object& object, const OpenedSets& opened) {
    const FindMap find = [&](const std::string& name) { return object.map(name); };
    for (std::uint32_t i = 0; i < opened.sets.size(); i++)
        NETCTL_TRY(place_set(find, opened.sets[i], i));
    return {};
}

} // namespace netctl::datapath
