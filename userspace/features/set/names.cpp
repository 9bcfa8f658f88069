// SPDX-License-Identifier: GPL-2.0-only
#include "features/set/names.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sstream>

#include <fmt/format.h>

#include "bpf/connect.hpp"
#include "bpf/object.hpp"
#include "bpf/per_cpu_sum.hpp"
#include "core/transaction.hpp"
#include "name_reader.skel.h"
#include "sys/cgroup.hpp"
#include "sys/dns.hpp"
#include "sys/netns.hpp"

namespace netctl::set {

using datapath::Set;

namespace {

constexpr std::size_t longest_label = 63;
/// A time to live of more than a day is of no use where addresses move.
constexpr std::uint32_t longest_ttl = 86400;

bool same(const nc_name& a, const nc_name& b) {
    return a.length == b.length && std::memcmp(a.wire, b.wire, a.length) == 0;
}

nc_name_key key_of(const WantedName& wanted) {
    nc_name_key key{NC_NAME_HASH_START, wanted.below ? 1U : 0U, 0};
    for (std::size_t i = wanted.name.length; i-- > 0;)
        key.hash = nc_name_hash_on(key.hash, wanted.name.wire[i]);
    return key;
}

/// As maps have it.
nc_resolver raw(const Address& address) {
    nc_resolver raw{};
    std::memcpy(raw.address, address.bytes.data(), address.bits() / 8);
    raw.family = address.family == Family::ipv4 ? 4 : 6;
    return raw;
}

Address address_of(const __be32* bytes, std::uint32_t family) {
    Address address;
    address.family = family == 4 ? Family::ipv4 : Family::ipv6;
    std::memcpy(address.bytes.data(), bytes, address.bits() / 8);
    return address;
}

/// The addresses of this host's own interfaces.
Result<std::vector<Address>> own_addresses() {
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0)
        return Error::system(errno, "cannot list the addresses of this host");
    std::vector<Address> own;
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr)
            continue;
        Address address;
        if (one->ifa_addr->sa_family == AF_INET) {
            std::memcpy(address.bytes.data(),
                        &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, 4);
        } else if (one->ifa_addr->sa_family == AF_INET6) {
            address.family = Family::ipv6;
            std::memcpy(address.bytes.data(),
                        &reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        own.push_back(address);
    }
    freeifaddrs(list);
    return own;
}

bool is_loopback(const Address& address) {
    return address.family == Family::ipv4 ? address.bytes[0] == 127
                                          : address == Address::parse("::1").value_or(Address{});
}

/// Whether answers from there never leave this host.
Result<std::vector<Resolver>> with_places(const std::vector<Address>& addresses) {
    const std::vector<Address> own = NETCTL_TRY(own_addresses());
    std::vector<Resolver> resolvers;
    for (const Address& address : addresses)
        resolvers.push_back(
            {address, is_loopback(address) || std::ranges::count(own, address) > 0});
    return resolvers;
}

Result<> check_count(const std::vector<Address>& resolvers) {
    if (resolvers.empty())
        return Error::usage("this host has no resolver in /etc/resolv.conf",
                            "--resolver ADDRESS names whose answers are believed");
    if (resolvers.size() > NC_NAME_RESOLVERS)
        return Error::usage(
            fmt::format("a set of names believes {} resolvers at most", NC_NAME_RESOLVERS));
    return {};
}

Result<> put_resolver(const bpf::RawMap& map, const Resolver& resolver) {
    const nc_resolver key = raw(resolver.address);
    const std::uint32_t flags = resolver.local ? NC_RESOLVER_LOCAL : 0;
    return map.update(&key, &flags);
}

/// Adds the resolvers that a file names; a file that is not there names none.
void read_resolvers(const char* path, std::vector<Address>& resolvers) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string word, text;
        words >> word >> text;
        if (word != "nameserver")
            continue;
        const auto address = Address::parse(text.substr(0, text.find('%')));
        if (address && std::ranges::count(resolvers, *address) == 0)
            resolvers.push_back(*address);
    }
}

/// Pins beside the links; those that others look at.
constexpr std::array pinned{"names", "resolvers", "settings", "learnt", "name_stats"};
constexpr std::array hooks{std::pair{"names_in", bpf::CgroupHook::skb_ingress},
                           std::pair{"names_out", bpf::CgroupHook::skb_egress}};

} // namespace

std::string to_string(const nc_name& name) {
    std::string text;
    for (std::size_t at = 0; at < name.length;) {
        const std::size_t end = std::min<std::size_t>(at + 1 + name.wire[at], name.length);
        if (at > 0)
            text += '.';
        for (at++; at < end; at++) {
            const char byte = static_cast<char>(name.wire[at]);
            if (std::isalnum(static_cast<unsigned char>(byte)) != 0 || byte == '-' || byte == '_')
                text += byte;
            else
                text += fmt::format("\\{:03}", name.wire[at]);
        }
    }
    return text.empty() ? "." : text;
}

std::string WantedName::to_string() const {
    return (below ? "*." : "") + set::to_string(name);
}

bool WantedName::operator==(const WantedName& other) const {
    return below == other.below && same(name, other.name);
}

bool WantedName::covers(const nc_name& asked) const {
    if (!below)
        return same(name, asked);
    for (std::size_t at = 0; at < asked.length; at += 1U + asked.wire[at])
        if (at > 0 && asked.length - at == name.length &&
            std::memcmp(asked.wire + at, name.wire, name.length) == 0)
            return true;
    return false;
}

Result<WantedName> parse_wanted_name(std::string_view text) {
    const std::string given(text);
    const auto refuse = [&](const std::string& why) {
        return Error::usage(Text::format("'{}' is no name: {}", given, why),
                            "a name such as example.com, or *.example.com for all names below it");
    };
    if (Prefix::parse(given))
        return Error::usage(Text::format("'{}' is an address, and the set holds names", given),
                            "a set of type host or cidr holds addresses");
    WantedName wanted;
    if (text.starts_with("*.")) {
        wanted.below = true;
        text.remove_prefix(2);
    }
    if (text.ends_with('.'))
        text.remove_suffix(1);
    if (text.empty())
        return refuse("there is nothing in it");
    std::size_t used = 0;
    for (bool more = true; more;) {
        const std::size_t dot = text.find('.');
        const std::string_view label = text.substr(0, dot);
        more = dot != std::string_view::npos;
        text.remove_prefix(more ? dot + 1 : text.size());
        if (label.empty() || label.size() > longest_label)
            return refuse(fmt::format("between dots there are 1 to {} characters", longest_label));
        if (used + 1 + label.size() > NC_NAME_BYTES - 1)
            return refuse("it is longer than 253 characters");
        wanted.name.wire[used++] = static_cast<__u8>(label.size());
        for (const char each : label) {
            const auto byte = static_cast<unsigned char>(each);
            if (byte >= 0x80) {
                Error error = refuse("it is not as DNS has it");
                error.hint = "names of other scripts are given as DNS has them, xn--…; `idn2 NAME` "
                             "tells it";
                return error;
            }
            if (each == '*')
                return refuse("a * stands for whole labels, at the beginning");
            if (std::isalnum(byte) == 0 && each != '-' && each != '_')
                return refuse(fmt::format("it has the character '{}'", each));
            wanted.name.wire[used++] = static_cast<__u8>(std::tolower(byte));
        }
    }
    wanted.name.length = static_cast<__u8>(used);
    return wanted;
}

Result<std::vector<Address>> resolvers_of_host() {
    std::vector<Address> resolvers;
    read_resolvers("/etc/resolv.conf", resolvers);
    read_resolvers("/run/systemd/resolve/resolv.conf", resolvers);
    NETCTL_TRY(check_count(resolvers));
    return resolvers;
}

Result<> Names::start(const bpf::PinDir& dir, const bpf::RawMap& v4, const bpf::RawMap& v6,
                      std::uint32_t max_entries, const NameRequest& request) {
    std::vector<Address> addresses = request.resolvers;
    if (addresses.empty())
        addresses = NETCTL_TRY(resolvers_of_host());
    NETCTL_TRY(check_count(addresses));
    nc_name_settings settings{NC_ABI_VERSION, 0, request.grace, longest_ttl, max_entries, 0};
    std::vector<Resolver> resolvers;
    {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(request.netns));
        settings.netns = static_cast<__u32>(NETCTL_TRY(sys::current_netns_inode()));
        resolvers = NETCTL_TRY(with_places(addresses));
    }
    auto skeleton = NETCTL_TRY(bpf::Skeleton<name_reader>::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(object.reuse("v4", v4));
    NETCTL_TRY(object.reuse("v6", v6));
    NETCTL_TRY(object.set_max_entries("learnt", max_entries));
    NETCTL_TRY(object.set_max_entries("places", max_entries));
    NETCTL_TRY(object.load());
    const std::uint32_t zero = 0;
    NETCTL_TRY(NETCTL_TRY(object.map("settings")).update(&zero, &settings));
    const bpf::RawMap believed = NETCTL_TRY(object.map("resolvers"));
    for (const Resolver& resolver : resolvers)
        NETCTL_TRY(put_resolver(believed, resolver));
    for (const char* name : pinned)
        NETCTL_TRY(dir.pin(name, NETCTL_TRY(object.map(name))));
    const sys::Cgroup root = NETCTL_TRY(sys::find_cgroup(""));
    const Fd cgroup = NETCTL_TRY(sys::open_cgroup(root));
    for (const auto& [name, hook] : hooks) {
        const bpf::Program program = NETCTL_TRY(object.program(name));
        NETCTL_TRY(dir.pin(name, NETCTL_TRY(bpf::attach_to_cgroup(cgroup.get(), program, hook))));
    }
    return {};
}

Result<Names> Names::open(const datapath::Root& root, const std::string& set) {
    Names names(root.dir().sub("sets").sub(set));
    const bpf::PinDir& dir = names.dir_;
    names.names_ = NETCTL_TRY(decltype(names_)::wrap(NETCTL_TRY(dir.open_map("names"))));
    names.resolvers_ =
        NETCTL_TRY(decltype(resolvers_)::wrap(NETCTL_TRY(dir.open_map("resolvers"))));
    names.settings_ = NETCTL_TRY(decltype(settings_)::wrap(NETCTL_TRY(dir.open_map("settings"))));
    names.learnt_ = NETCTL_TRY(decltype(learnt_)::wrap(NETCTL_TRY(dir.open_map("learnt"))));
    names.stats_ = NETCTL_TRY(dir.open_map("name_stats"));
    return names;
}

Result<std::vector<WantedName>> Names::names() const {
    std::vector<WantedName> all;
    for (const std::uint8_t* bytes : NETCTL_TRY(names_.raw().keys())) {
        nc_name_key key{};
        std::memcpy(&key, bytes, sizeof key);
        if (const auto name = NETCTL_TRY(names_.lookup(key)))
            all.push_back({*name, key.below != 0});
    }
    std::ranges::sort(all, {}, [](const WantedName& name) {
        return std::pair(to_string(name.name), name.below);
    });
    return all;
}

Result<> Names::add(const std::vector<WantedName>& names, std::vector<std::string>& notes) const {
    std::vector<nc_name_key> added;
    Transaction transaction(notes);
    transaction.or_else("the names", [&]() -> Result<> {
        for (const nc_name_key& key : added)
            NETCTL_TRY(names_.erase(key));
        return {};
    });
    for (const WantedName& wanted : names) {
        const nc_name_key key = key_of(wanted);
        const auto present = NETCTL_TRY(names_.lookup(key));
        if (present && !same(*present, wanted.name))
            return Error::failed(Text::format("{} cannot be told from {} by its hash",
                                              wanted.to_string(), to_string(*present)));
        if (present)
            continue;
        NETCTL_TRY(names_.update(key, wanted.name));
        added.push_back(key);
    }
    std::move(transaction).commit([](Aftermath&) {});
    return {};
}

Result<> Names::remove(const std::vector<WantedName>& names, Set::Missing missing, const Set& set,
                       std::vector<std::string>& notes) const {
    std::vector<WantedName> gone;
    Transaction transaction(notes);
    transaction.or_else("the names", [&]() -> Result<> {
        for (const WantedName& name : gone)
            NETCTL_TRY(names_.update(key_of(name), name.name));
        return {};
    });
    for (const WantedName& name : names)
        if (missing == Set::Missing::fail && !NETCTL_TRY(names_.lookup(key_of(name))))
            return Error::failed(
                Text::format("{} is not in set '{}'", name.to_string(), set.name()),
                "`netctl set list` shows what is; --exist does not mind");
    for (const WantedName& name : names)
        if (NETCTL_TRY(names_.erase(key_of(name))))
            gone.push_back(name);
    const std::vector<WantedName> rest = NETCTL_TRY(this->names());
    const auto is_wanted = [&](const nc_name& asked) {
        return std::ranges::any_of(rest,
                                   [&](const WantedName& name) { return name.covers(asked); });
    };
    std::vector<datapath::SetElement> addresses;
    for (const LearntAddress& one : NETCTL_TRY(learnt()))
        if (!is_wanted(one.asked))
            addresses.emplace_back(
                Prefix{one.address, static_cast<std::uint8_t>(one.address.bits())});
    std::move(transaction).commit([&](Aftermath& after) {
        after.tidy("the addresses of the names",
                   set.remove(addresses, Set::Missing::ignore, notes));
        for (const datapath::SetElement& element : addresses) {
            const nc_resolver key = raw(std::get<Prefix>(element).address);
            nc_name_address place{};
            std::memcpy(&place, &key, sizeof place);
            after.tidy("what is known of an address", [&]() -> Result<> {
                NETCTL_TRY(learnt_.erase(place));
                return {};
            }());
        }
    });
    return {};
}

Result<std::vector<LearntAddress>> Names::learnt() const {
    std::vector<LearntAddress> all;
    for (const std::uint8_t* bytes : NETCTL_TRY(learnt_.raw().keys())) {
        nc_name_address key{};
        std::memcpy(&key, bytes, sizeof key);
        if (const auto value = NETCTL_TRY(learnt_.lookup(key)))
            all.push_back(
                {address_of(key.address, key.family), value->name, value->since, value->told});
    }
    std::ranges::sort(all, {}, &LearntAddress::address);
    return all;
}

Result<std::vector<Resolver>> Names::resolvers() const {
    std::vector<Resolver> all;
    for (const std::uint8_t* bytes : NETCTL_TRY(resolvers_.raw().keys())) {
        nc_resolver key{};
        std::memcpy(&key, bytes, sizeof key);
        if (const auto flags = NETCTL_TRY(resolvers_.lookup(key)))
            all.push_back({address_of(key.address, key.family), (*flags & NC_RESOLVER_LOCAL) != 0});
    }
    std::ranges::sort(all, {}, &Resolver::address);
    return all;
}

Result<nc_name_settings> Names::settings() const {
    const auto settings = NETCTL_TRY(settings_.lookup(0));
    if (!settings || settings->abi_version != NC_ABI_VERSION)
        return Error::failed("the settings of the set's names are of another version of netctl");
    return *settings;
}

Result<std::string> Names::trouble(const nc_name_settings&) const {
    for (const auto& [name, hook] : hooks) {
        if (!NETCTL_TRY(dir_.look_for(name)))
            return std::string("its programs are gone: no answer is read");
        auto link = dir_.open_link(name);
        if (!link && link.error().code == EROFS)
            continue; // a bpffs that nobody writes to
        if (NETCTL_TRY(NETCTL_TRY(std::move(link)).info()).cgroup == 0)
            return std::string("its programs were taken off the cgroup: no answer is read");
    }
    return std::string();
}

Result<NameStatus> Names::status() const {
    NameStatus status;
    status.settings = NETCTL_TRY(settings());
    status.names = NETCTL_TRY(names());
    status.resolvers = NETCTL_TRY(resolvers());
    status.stats = NETCTL_TRY(bpf::sum_per_cpu<nc_name_stats>(stats_));
    status.trouble = NETCTL_TRY(trouble(status.settings));
    return status;
}

Result<> Names::set_resolvers(const std::vector<Address>& given,
                              std::vector<std::string>& notes) const {
    std::vector<Address> addresses = given;
    if (addresses.empty())
        addresses = NETCTL_TRY(resolvers_of_host());
    NETCTL_TRY(check_count(addresses));
    const std::vector<Resolver> wanted = NETCTL_TRY(with_places(addresses));
    const std::vector<Resolver> before = NETCTL_TRY(resolvers());
    Transaction transaction(notes);
    const auto drop = [&](const std::vector<Resolver>& all,
                          const std::vector<Resolver>& but) -> Result<> {
        for (const Resolver& one : all)
            if (std::ranges::count(but, one.address, &Resolver::address) == 0)
                NETCTL_TRY(resolvers_.erase(raw(one.address)));
        return {};
    };
    transaction.or_else("the resolvers", [&]() -> Result<> {
        NETCTL_TRY(drop(wanted, before));
        for (const Resolver& one : before)
            NETCTL_TRY(put_resolver(resolvers_.raw(), one));
        return {};
    });
    // Those that go first: there may be no room for both.
    NETCTL_TRY(drop(before, wanted));
    for (const Resolver& one : wanted)
        NETCTL_TRY(put_resolver(resolvers_.raw(), one));
    std::move(transaction).commit([](Aftermath&) {});
    return {};
}

Result<std::vector<Resolved>> Names::resolve(const std::vector<WantedName>& names) const {
    const nc_name_settings settings = NETCTL_TRY(this->settings());
    if (settings.netns != NETCTL_TRY(sys::current_netns_inode()))
        return Error::failed("the set reads the answers of another network namespace",
                             "--netns NAME asks from there");
    const std::vector<Resolver> believed = NETCTL_TRY(resolvers());
    std::vector<Resolved> all;
    for (const WantedName& name : names) {
        Resolved& one = all.emplace_back(Resolved{name});
        for (const auto& [type, title] :
             {std::pair{sys::DnsType::a, "A"}, {sys::DnsType::aaaa, "AAAA"}}) {
            std::string trouble = "no resolver";
            for (const Resolver& resolver : believed) {
                const auto answer =
                    sys::ask_dns(resolver.address, {name.name.wire, name.name.length}, type);
                trouble = answer ? "" : answer.error().what.string();
                if (trouble.empty())
                    break;
            }
            if (!trouble.empty())
                one.trouble.push_back(fmt::format("{}: {}", title, trouble));
        }
    }
    return all;
}

} // namespace netctl::set
