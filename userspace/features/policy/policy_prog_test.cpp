// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's lookup of connect policies against the reference matcher: random rules, and random
// connections in their neighbourhood, through the program `probe`.
#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bpf/standalone.hpp"
#include "bpf/xdp.hpp"
#include "features/policy/compile.hpp"
#include "netctl/abi/classify.h"
#include "policy_hooks.skel.h"
#include "testing/environment.hpp"

namespace netctl::policy {
namespace {

/// Executables are called /exe/N.
std::optional<ExeId> find_exe(const std::string& path) {
    const auto number = static_cast<std::uint32_t>(std::stoul(path.substr(5)));
    if (number == 9)
        return std::nullopt; // one that is missing
    return ExeId{8 << 20 | number % 3, 1000 + number / 3};
}

constexpr const char* cgroups[] = {"/", "/a", "/a/b", "/a/b/c", "/a/bb", "/d", "/d/e", "/e"};
constexpr const char* elsewhere[] = {"/", "/a", "/a/b/c/d", "/a/x", "/d/e/f", "/x", "/ab"};

class Fuzz {
  public:
    explicit Fuzz(std::uint64_t seed) : random_(seed) {}

    std::size_t below(std::size_t bound) { return random_() % bound; }
    bool one_in(std::size_t n) { return below(n) == 0; }

    Address address() {
        Address address;
        if (one_in(3)) {
            address.family = Family::ipv6;
            for (const std::size_t i : {0, 1, 7, 8, 15})
                address.bytes[i] = static_cast<std::uint8_t>(below(3) * 0x40);
        } else {
            for (std::size_t i = 0; i < 4; i++)
                address.bytes[i] = static_cast<std::uint8_t>(below(3) * 0x60 + below(2));
        }
        return address;
    }

    std::string prefix() {
        Prefix prefix{address(), 0};
        const unsigned bits = prefix.address.bits();
        prefix.length = static_cast<std::uint8_t>(one_in(3) ? bits : below(bits + 1));
        for (unsigned bit = prefix.length; bit < bits; bit++)
            prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
        return prefix.to_string();
    }

    std::string range(std::uint64_t most) {
        const std::uint64_t low = std::min<std::uint64_t>(value(most), most);
        if (one_in(2))
            return std::to_string(low);
        return fmt::format("{}-{}", low, std::min<std::uint64_t>(low + below(50), most));
    }
    std::uint64_t value(std::uint64_t most) { return one_in(20) ? most : below(120); }

    std::string maybe_not() { return one_in(4) ? "not " : ""; }

    template <class Item> std::string list(Item item) {
        std::string text = "{" + item();
        for (std::size_t i = below(4); i > 0; i--)
            text += ", " + item();
        return one_in(3) ? text + "}" : item();
    }

    Rule rule(std::size_t density) {
        for (;;) {
            std::string text;
            const auto wanted = [&] { return below(8) < density; };
            if (wanted())
                text +=
                    "dst " + maybe_not() +
                    (one_in(6) ? one_in(2) ? "@hosts" : "@nets" : list([&] { return prefix(); })) +
                    " ";
            const bool ports = wanted();
            if (ports)
                text += "dport " + maybe_not() +
                        (one_in(5) ? "@ports" : list([&] { return range(65535); })) + " ";
            if (one_in(12))
                text += "sport " + maybe_not() +
                        (one_in(5) ? "@ports" : list([&] { return range(65535); })) + " ";
            if (wanted())
                text += "proto " + maybe_not() + (one_in(2) ? "{tcp, 100-110}" : "udp") + " ";
            if (wanted())
                text += "uid " + maybe_not() + list([&] { return range(0xfffffffe); }) + " ";
            if (one_in(6))
                text += "gid " + maybe_not() + list([&] { return range(0xfffffffe); }) + " ";
            if (wanted())
                text += "cgroup " + maybe_not() + cgroups[1 + below(std::size(cgroups) - 1)] + " ";
            if (one_in(4))
                text += fmt::format("exe {}/exe/{} ", maybe_not(), below(10));
            const auto rule = parse_rule(text + "deny", Hook::policy);
            if (rule)
                return *rule;
            // What contradicts itself, the language refuses.
        }
    }

    /// A rule that asks about up to three sets, and `alone` about nothing else.
    Rule rule_on_sets(bool alone) {
        std::string text =
            one_in(4) ? "" : fmt::format("dst {}@{} ", maybe_not(), one_in(2) ? "hosts" : "nets");
        if (one_in(2))
            text += fmt::format("dport {}@ports ", maybe_not());
        if (text.empty() || one_in(4))
            text += fmt::format("sport {}@ports ", maybe_not());
        if (!alone && one_in(2))
            text += fmt::format("uid {} ", range(120));
        if (!alone && one_in(2))
            text += fmt::format("proto {} ", one_in(2) ? "tcp" : "udp");
        const auto rule = parse_rule(text + "deny", Hook::policy);
        if (!rule)
            throw std::runtime_error(rule.error().what);
        return *rule;
    }

    Connection connection() {
        Connection connection;
        connection.dst = address();
        constexpr std::uint8_t protocols[] = {6, 6, 17, 17, 1, 105, 132};
        connection.proto = protocols[below(std::size(protocols))];
        connection.dport = static_cast<std::uint16_t>(value(65535));
        connection.sport = one_in(2) ? 0 : static_cast<std::uint16_t>(value(65535));
        connection.uid = static_cast<std::uint32_t>(value(0xfffffffe));
        connection.gid = static_cast<std::uint32_t>(value(0xfffffffe));
        connection.cgroup =
            one_in(3) ? elsewhere[below(std::size(elsewhere))] : cgroups[below(std::size(cgroups))];
        connection.exe = {8 << 20 | static_cast<std::uint32_t>(below(3)), 1000 + below(4)};
        return connection;
    }

  private:
    std::mt19937_64 random_;
};

/// What is in the sets is a function of the element.
bool in_hosts(const Address& address) {
    return address.bytes[3] % 2 == 1;
}
bool in_nets(const Address& address) {
    return address.bytes[0] >= 0x60;
}
bool in_ports(std::uint16_t port) {
    return port % 3 == 0 && port < 120;
}

const classifier::SetOracle sets{
    [](const std::string& name, const Address& address) {
        return name == "hosts" ? in_hosts(address) : in_nets(address);
    },
    [](const std::string&, std::uint16_t port) { return in_ports(port); }};

/// The value; without one, the test has nothing to go on with.
template <class T> T ok(Result<T> result) {
    if (!result)
        throw std::runtime_error(result.error().what);
    return std::move(result).value();
}

/// Pairs of field and set that the fuzzer's rules have. Filling a slot takes milliseconds.
constexpr std::uint32_t most_questions = 4;

/// The program, into which one rule set after the other is put.
class Kernel {
  public:
    Kernel() : skeleton_(ok(bpf::Skeleton<policy_hooks>::open())), object_(skeleton_.object()) {
        for (const char* hook :
             {"connect4", "connect6", "sendmsg4", "sendmsg6", "lsm_connect", "lsm_sendmsg"})
            ok(object_.set_autoload(hook, false));
        ok(object_.set_autocreate("limit_src", false));
        ok(object_.load());
        probe_ = ok(object_.program("probe"));
        fill_sets();
    }

    void put(Tables tables, bool near) {
        tables_ = std::move(tables);
        nc_policy_head& head = tables_.head;
        head.epoch = ++epoch_;
        head.near = near;
        for (std::size_t i = 0; i < tables_.set_uses.size(); i++) {
            nc_policy_set_use& use = head.set_use[i];
            const std::string& name = tables_.set_uses[i].set;
            use.type = name == "hosts" ? NC_SET_HOST : name == "nets" ? NC_SET_CIDR : NC_SET_PORT;
        }
        std::vector<std::uint64_t> all(NC_HEAD_WORDS);
        all.insert(all.end(), tables_.words.begin(), tables_.words.end());
        std::memcpy(all.data(), &head, sizeof head);
        const std::size_t count = (all.size() + NC_SEGMENT_WORDS - 1) / NC_SEGMENT_WORDS;
        all.resize(count * NC_SEGMENT_WORDS);
        ASSERT_TRUE(!near || count == 1);
        const std::uint32_t zero = 0;
        for (std::uint32_t i = 0; i < count; i++) {
            const bpf::RawMap segment = ok(bpf::create_standalone("policy_segment", 1));
            ok(segment.update(&zero, all.data() + i * NC_SEGMENT_WORDS));
            const int fd = segment.fd();
            if (!near)
                ok(ok(object_.map("segments")).update(&i, &fd));
            if (i == 0)
                ok(ok(object_.map("root")).update(&zero, &fd));
        }
    }

    std::uint32_t position(const Connection& connection) {
        nc_policy_question asked{};
        std::memcpy(asked.dst, connection.dst.bytes.data(), sizeof asked.dst);
        asked.family = static_cast<__u8>(connection.dst.family);
        asked.proto = connection.proto;
        asked.dport = connection.dport;
        asked.sport = connection.sport;
        asked.uid = connection.uid;
        asked.gid = connection.gid;
        asked.exe_dev = connection.exe.device;
        asked.exe_inode = connection.exe.inode;
        asked.cgroup_row = cgroup_row(connection.cgroup);
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&asked);
        return ok(bpf::test_run(probe_, {bytes, sizeof asked})).action;
    }

  private:
    /// As the kernel walks: name by name.
    std::uint64_t cgroup_row(const std::string& path) const {
        std::uint64_t row = tables_.head.cgroup_root, node = 0;
        for (std::size_t begin = 1; begin < path.size();) {
            const std::size_t end = std::min(path.find('/', begin), path.size());
            const std::string name = path.substr(begin, end - begin);
            begin = end + 1;
            const auto found =
                std::find_if(tables_.cgroups.begin(), tables_.cgroups.end(), [&](const auto& at) {
                    return at.first.parent == node && at.first.name == name;
                });
            if (found == tables_.cgroups.end())
                break;
            node = found->second.node;
            row = found->second.row;
        }
        return row;
    }

    void fill_sets() {
        const nc_set_value member{};
        const auto outer = [&](const char* name, const bpf::RawMap& inner) {
            const bpf::RawMap map = ok(object_.map(name));
            const int fd = inner.fd();
            for (std::uint32_t slot = 0; slot < most_questions; slot++)
                ok(map.update_batch(&slot, &fd, 1, sizeof slot, sizeof fd));
        };
        const bpf::RawMap nets4 = ok(bpf::create_standalone("set_cidr4", 16));
        const bpf::RawMap nets6 = ok(bpf::create_standalone("set_cidr6", 16));
        for (const std::uint8_t byte : {0x60, 0x80}) {
            nc_set_cidr4 key4{byte == 0x60 ? 3U : 1U, 0};
            nc_set_cidr6 key6{byte == 0x60 ? 3U : 1U, {}};
            std::memcpy(&key4.address, &byte, 1);
            std::memcpy(key6.address, &byte, 1);
            ok(nets4.update(&key4, &member));
            ok(nets6.update(&key6, &member));
        }
        outer("set_cidr4", nets4);
        outer("set_cidr6", nets6);
        // All that the fuzzer makes, and that is in it.
        const bpf::RawMap hosts4 = ok(bpf::create_standalone("set_host4", 1 << 16));
        const bpf::RawMap hosts6 = ok(bpf::create_standalone("set_host6", 1));
        Fuzz fuzz(1);
        constexpr std::uint8_t values[] = {0x00, 0x01, 0x60, 0x61, 0xc0, 0xc1};
        for (const std::uint8_t a : values)
            for (const std::uint8_t b : values)
                for (const std::uint8_t c : values)
                    for (const std::uint8_t d : values) {
                        const std::uint8_t bytes[4] = {a, b, c, d};
                        if (d % 2 == 1)
                            ok(hosts4.update(bytes, &member));
                    }
        outer("set_host4", hosts4);
        outer("set_host6", hosts6); // the fuzzer's IPv6 addresses have an even byte there
        const bpf::RawMap ports = ok(bpf::create_standalone("set_ports", 65536));
        for (std::uint16_t port = 0; port < 120; port++) {
            const std::uint8_t key[2] = {static_cast<std::uint8_t>(port >> 8),
                                         static_cast<std::uint8_t>(port)};
            if (in_ports(port))
                ok(ports.update(key, &member));
        }
        outer("set_port", ports);
    }

    bpf::Skeleton<policy_hooks> skeleton_;
    bpf::Object object_;
    bpf::Program probe_;
    Tables tables_;
    std::uint32_t epoch_ = 0;
};

std::size_t compare(Kernel& kernel, Fuzz& fuzz, const std::vector<Rule>& rules, bool near,
                    std::size_t connections) {
    const std::vector<nc_policy_action> actions(rules.size());
    kernel.put(ok(compile(rules, actions, find_exe)), near);
    for (std::size_t i = 0; i < connections; i++) {
        const Connection connection = fuzz.connection();
        const auto expected = first_match(rules, connection, find_exe, sets);
        const std::uint32_t wanted = expected ? static_cast<std::uint32_t>(*expected) : NC_NO_RULE;
        const std::uint32_t found = kernel.position(connection);
        if (found == wanted)
            continue;
        ADD_FAILURE() << fmt::format(
            "{} rules, {}: {}:{} from {} proto {} uid {} gid {} cgroup {} exe {}: rule {} instead "
            "of {} ({})",
            rules.size(), near ? "near" : "far", connection.dst.to_string(), connection.dport,
            connection.sport, connection.proto, connection.uid, connection.gid, connection.cgroup,
            connection.exe.inode, static_cast<std::int32_t>(found),
            static_cast<std::int32_t>(wanted), expected ? to_string(rules[*expected]) : "none");
        return i;
    }
    return connections;
}

TEST(PolicyTables, FindTheFirstMatchLikeTheReference) {
    Kernel kernel;
    Fuzz fuzz(20);
    std::size_t pairs = 0;
    const std::uint64_t rounds =
        std::max<std::uint64_t>(testing::from_environment("NETCTL_FUZZ_CASES", 50'000) / 500, 10);
    for (std::size_t round = 0; round < rounds && !HasFailure(); round++) {
        // From empty to a few words of rules, from nearly empty rules to full ones.
        const std::size_t count = round % 10 == 0 ? round / 10 : 1 + fuzz.below(400);
        std::vector<Rule> rules;
        for (std::size_t i = 0; i < count; i++)
            rules.push_back(fuzz.rule(1 + round % 7));
        pairs += compare(kernel, fuzz, rules, round % 3 != 0, 500);
    }
    EXPECT_GE(pairs, rounds * 500);
}

TEST(PolicyTables, AskAboutSetsWhatRulesAsk) {
    Kernel kernel;
    Fuzz fuzz(23);
    for (std::size_t round = 0; round < 24 && !HasFailure(); round++) {
        // Some with nothing but sets, some that leave few candidates, and ends of words.
        std::vector<Rule> rules;
        for (std::size_t i = 0; i < 1 + round * round / 3; i++)
            rules.push_back(fuzz.rule_on_sets(round % 2 == 0));
        compare(kernel, fuzz, rules, round % 3 != 2, 200);
    }
}

TEST(PolicyTables, FindItAmongThousands) {
    Kernel kernel;
    Fuzz fuzz(21);
    for (const std::size_t density : {5, 7}) {
        std::vector<Rule> rules;
        // Above one summary; the last rules are reached because they are alone with their ports.
        for (std::size_t i = 0; i < 9000; i++)
            rules.push_back(fuzz.rule(density));
        compare(kernel, fuzz, rules, false, 2000);
    }
}

TEST(PolicyTables, AnEmptyPolicyMatchesNothing) {
    Kernel kernel;
    Fuzz fuzz(22);
    compare(kernel, fuzz, {}, true, 10);
    compare(kernel, fuzz, {ok(parse_rule("deny", Hook::policy))}, true, 10);
}

} // namespace
} // namespace netctl::policy
