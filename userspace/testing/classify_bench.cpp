// SPDX-License-Identifier: GPL-2.0-only
//
// classify_bench rules acl1|fw1|ipc1|FAMILY 4|6 COUNT ROUNDS [FILE]
// classify_bench set 4|6 COUNT ROUNDS
// classify_bench compile|count acl1|fw1|ipc1|FAMILY 4|6 COUNT [FILE]
// classify_bench hunt 4|6 COUNT SECONDS SEED
//
// The measuring half of scripts/bench-classify: what classifying a packet, or asking a set, costs above
// parsing it. All cases take turns in each round; prints one JSON document, in nanoseconds a packet.
#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <numeric>
#include <random>
#include <string>

#include <linux/if_ether.h>
#include <netinet/in.h>

#include "classifier/classbench.hpp"
#include "core/json.hpp"
#include "datapath/set_base.hpp"
#include "testing/classifier_run.hpp"
#include "testing/firewall_rules.hpp"
#include "testing/packet.hpp"
#include "testing/rule_families.hpp"
#include "testing/rule_hunt.hpp"
#include "testing/set_run.hpp"
#include "testing/table_walk.hpp"

namespace netctl::testing {

namespace {

constexpr std::uint32_t repeat = 200000;
constexpr std::size_t different = 100000;

using Random = std::mt19937_64;
using Cost = std::function<Result<std::uint32_t>()>;

struct Case {
    std::string name;
    std::function<void()> prepare;
    Cost base, whole;
    std::vector<double> above{};
};

Result<> measure(std::vector<Case>& cases, int rounds) {
    for (int round = 0; round < rounds; round++)
        for (Case& each : cases) {
            each.prepare();
            NETCTL_TRY(each.whole()); // warm
            const double base = NETCTL_TRY(each.base());
            const double whole = NETCTL_TRY(each.whole());
            each.above.push_back(whole - base);
        }
    return {};
}

Json report(std::vector<Case>& cases) {
    Json rows = Json::array();
    for (Case& each : cases) {
        std::sort(each.above.begin(), each.above.end());
        rows.push_back({{"case", each.name},
                        {"median_ns", each.above[each.above.size() / 2]},
                        {"lowest_ns", each.above.front()},
                        {"highest_ns", each.above.back()}});
    }
    return rows;
}

Prefix masked(Address address, unsigned length) {
    for (unsigned i = length; i < address.bits(); i++)
        address.bytes[i / 8] &= static_cast<std::uint8_t>(~(0x80 >> i % 8));
    return {address, static_cast<std::uint8_t>(length)};
}

/// Any IPv4 address, or one of those in IPv6 that are handed out (2000::/3).
Address any_address(Random& random, Family family) {
    Address address;
    address.family = family;
    for (unsigned i = 0; i < address.bits() / 8; i++)
        address.bytes[i] = static_cast<std::uint8_t>(random());
    if (family == Family::ipv6)
        address.bytes[0] = static_cast<std::uint8_t>(0x20 | (address.bytes[0] & 0x1f));
    return address;
}

Address inside(Random& random, const Prefix& prefix) {
    Address address = any_address(random, prefix.address.family);
    for (unsigned i = 0; i < prefix.length; i++) {
        const auto bit = static_cast<std::uint8_t>(0x80 >> i % 8);
        address.bytes[i / 8] = static_cast<std::uint8_t>((address.bytes[i / 8] & ~bit) |
                                                         (prefix.address.bytes[i / 8] & bit));
    }
    return address;
}

/// In what the packet's source must differ from the frame's.
nc_bench_header header(const Address& wanted, const Address& frame) {
    nc_bench_header made{};
    auto* bytes = reinterpret_cast<std::uint8_t*>(made.src);
    for (std::size_t i = 0; i < wanted.bytes.size(); i++)
        bytes[i] = wanted.bytes[i] ^ frame.bytes[i];
    return made;
}

Result<Json> bench_set(Family family, std::size_t count, int rounds) {
    Random random(1);
    const std::vector<unsigned> lengths =
        family == Family::ipv4
            ? std::vector<unsigned>{20, 22, 24, 24, 25, 26, 27, 28, 29, 30, 31, 32, 32, 32}
            : std::vector<unsigned>{32, 40, 44, 48, 48, 48, 56, 64, 64, 64};
    std::vector<Prefix> prefixes, hosts;
    for (std::size_t i = 0; i < count; i++) {
        const unsigned bits = family == Family::ipv4 ? 32 : 128;
        prefixes.push_back(masked(any_address(random, family), lengths[random() % lengths.size()]));
        hosts.push_back(masked(any_address(random, family), bits));
    }
    std::sort(prefixes.begin(), prefixes.end());
    prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
    SetInput host{.type = NC_SET_HOST};
    for (const Prefix& prefix : hosts)
        host.live.emplace_back(prefix, nc_set_value{});
    const SetInput cidr{.base = prefixes};
    const SetRun with_cidr = NETCTL_TRY(SetRun::load({cidr}, prefixes));
    const SetRun with_host = NETCTL_TRY(SetRun::load({host}, hosts));

    const Address from = *Address::parse(family == Family::ipv4 ? "192.0.2.1" : "2001:db8::1");
    const Bytes frame = family == Family::ipv4 ? (Ether{} / Ipv4{.src = from} / Tcp{}).bytes()
                                               : (Ether{} / Ipv6{.src = from} / Tcp{}).bytes();
    std::vector<nc_bench_header> miss, hit, host_hit;
    const std::vector<nc_base_line> base = NETCTL_TRY(datapath::build_base(family, prefixes));
    while (miss.size() < different) {
        const Address address = any_address(random, family);
        if (datapath::base_lengths(base, address) == std::array<std::uint64_t, 3>{})
            miss.push_back(header(address, from));
    }
    for (std::size_t i = 0; i < different; i++) {
        hit.push_back(header(inside(random, prefixes[random() % prefixes.size()]), from));
        host_hit.push_back(header(hosts[random() % hosts.size()].address, from));
    }
    const auto one = [&](const SetRun& run, SetRun::Stage stage) -> Cost {
        return [&run, stage, &frame] { return run.cost(stage, frame, repeat); };
    };
    std::vector<Case> cases;
    const auto add = [&](const std::string& name, const SetRun& run, SetRun::Stage stage,
                         const std::vector<nc_bench_header>& headers) {
        cases.push_back({name, [&run, &headers] { run.set_headers(headers); },
                         one(run, SetRun::Stage::parse), one(run, stage)});
    };
    add("netctl cidr, miss", with_cidr, SetRun::Stage::set, miss);
    add("kernel trie, miss", with_cidr, SetRun::Stage::trie, miss);
    add("netctl cidr, hit", with_cidr, SetRun::Stage::set, hit);
    add("kernel trie, hit", with_cidr, SetRun::Stage::trie, hit);
    add("netctl host, miss", with_host, SetRun::Stage::set, miss);
    add("kernel hash, miss", with_host, SetRun::Stage::hash, miss);
    add("netctl host, hit", with_host, SetRun::Stage::set, host_hit);
    add("kernel hash, hit", with_host, SetRun::Stage::hash, host_hit);
    NETCTL_TRY(measure(cases, rounds));
    return report(cases);
}

/// The rules of a file, cut, or grown by copies of the same structure in other networks.
Result<std::vector<Rule>> rules_of_file(const std::string& path, std::size_t count) {
    std::ifstream file(path);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    std::vector<Rule> rules =
        NETCTL_TRY(classifier::parse_classbench(text, path, ActionKind::drop));
    const std::size_t had = rules.size();
    if (had == 0)
        return Error::failed("there are no rules in " + path);
    for (std::size_t i = had; i < count; i++) {
        Rule rule = rules[i % had];
        for (Match& match : rule.matches)
            for (Prefix& prefix : match.prefixes)
                if (prefix.length >= 8)
                    prefix.address.bytes[0] ^= static_cast<std::uint8_t>(i / had * 29);
        rules.push_back(std::move(rule));
    }
    // The files end in rules for everything: cut from the front, and shift copies among them.
    if (count > had)
        for (std::size_t i = 0; i < rules.size(); i++)
            std::swap(rules[i], rules[(i * 7919) % rules.size()]);
    rules.resize(count);
    return rules;
}

/// The same structure in IPv6: behind 32 bits that all have in common; a host stays one.
void move_to_ipv6(std::vector<Rule>& rules) {
    for (Rule& rule : rules)
        for (Match& match : rule.matches)
            for (Prefix& prefix : match.prefixes) {
                if (prefix.address.family != Family::ipv4)
                    continue;
                Address address = *Address::parse("2001:db8::");
                std::copy_n(prefix.address.bytes.begin(), 4, address.bytes.begin() + 4);
                const auto length =
                    static_cast<std::uint8_t>(prefix.length == 32  ? 128
                                              : prefix.length == 0 ? 0
                                                                   : 32 + prefix.length);
                prefix = masked(address, length);
            }
}

Result<std::vector<Rule>> rules_to_measure(const std::string& kind, Family family,
                                           std::size_t count, const std::string& path) {
    if (const auto named = rule_family(kind))
        return family_rules(*named, family, count, 1);
    if (path.empty())
        return firewall_rules(kind == "acl1"  ? FirewallKind::access_list
                              : kind == "fw1" ? FirewallKind::firewall
                                              : FirewallKind::ip_chain,
                              family, count, 1);
    std::vector<Rule> rules = NETCTL_TRY(rules_of_file(path, count));
    if (family == Family::ipv6)
        move_to_ipv6(rules);
    return rules;
}

/// TCP and UDP packets that rules taken at random are about: what must differ from a frame of zeroes.
std::vector<nc_bench_header> headers_of(Random& random, const std::vector<Rule>& rules,
                                        Family family) {
    std::vector<nc_bench_header> headers;
    for (std::size_t i = 0; i < different; i++) {
        const Rule& rule = rules[random() % rules.size()];
        nc_bench_header made{};
        Address src = any_address(random, family), dst = any_address(random, family);
        made.sport = static_cast<__u16>(random());
        made.dport = static_cast<__u16>(random());
        made.proto = random() % 2 ? 0 : 6 ^ 17;
        for (const Match& match : rule.matches) {
            if (match.key == Key::src && !match.prefixes.empty())
                src = inside(random, match.prefixes.front());
            if (match.key == Key::dst && !match.prefixes.empty())
                dst = inside(random, match.prefixes.front());
            if (match.ranges.empty())
                continue;
            const auto& range = match.ranges.front();
            const std::uint64_t value = range.low + random() % (range.high - range.low + 1);
            if (match.key == Key::sport)
                made.sport = static_cast<__u16>(value);
            if (match.key == Key::dport)
                made.dport = static_cast<__u16>(value);
            if (match.key == Key::proto)
                made.proto = static_cast<__u8>(value ^ 6);
        }
        std::copy_n(src.bytes.begin(), src.bits() / 8, reinterpret_cast<std::uint8_t*>(made.src));
        std::copy_n(dst.bytes.begin(), dst.bits() / 8, reinterpret_cast<std::uint8_t*>(made.dst));
        headers.push_back(made);
    }
    return headers;
}

Result<Json> bench_rules(const std::string& kind, Family family, std::size_t count, int rounds,
                         const std::string& path) {
    const std::vector<Rule> rules = NETCTL_TRY(rules_to_measure(kind, family, count, path));
    // Of this process: what else the machine does is no part of it.
    const std::clock_t begin = std::clock();
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(rules));
    const double compile_ms = 1000.0 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    const ClassifierRun run = NETCTL_TRY(ClassifierRun::load(compiled));

    Random random(1);
    const std::vector<nc_bench_header> headers = headers_of(random, rules, family);
    const Tcp tcp{.sport = 0, .dport = 0};
    const Address any4 = *Address::parse("0.0.0.0"), any6 = *Address::parse("::");
    const Bytes frame = family == Family::ipv4
                            ? (Ether{} / Ipv4{.src = any4, .dst = any4} / tcp).bytes()
                            : (Ether{} / Ipv6{.src = any6, .dst = any6} / tcp).bytes();
    std::vector<Case> cases;
    for (const std::size_t flows : {std::size_t{1}, std::size_t{4096}, different})
        cases.push_back({flows == 1      ? "hot"
                         : flows == 4096 ? "4096 flows"
                                         : "spread",
                         [&, flows] {
                             run.set_headers(std::span(headers).subspan(
                                 random() % (headers.size() - flows + 1), flows));
                         },
                         [&] { return run.cost(ClassifierRun::Stage::parse, frame, repeat); },
                         [&] { return run.cost(ClassifierRun::Stage::classify, frame, repeat); }});
    NETCTL_TRY(measure(cases, rounds));
    return Json{{"engine", compiled.engine},
                {"apart", compiled.rules_apart},
                {"bytes", compiled.memory()},
                {"compile_ms", compile_ms},
                {"rows", report(cases)}};
}

/// A figure of /proc/self/status, in KiB.
Result<std::size_t> memory_of_process(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == name + ":") {
            std::size_t kib = 0;
            status >> kib;
            return kib;
        }
    return Error::failed("/proc/self/status has no " + name);
}

/// What compiling takes, without loading anything: CPU time of the process, and its memory at the most beyond what it
/// had before.
Result<Json> bench_compile(const std::string& kind, Family family, std::size_t count,
                           const std::string& path) {
    const std::vector<Rule> rules = NETCTL_TRY(rules_to_measure(kind, family, count, path));
    std::ofstream("/proc/self/clear_refs") << 5; // the peak is that from here on
    const std::size_t before = NETCTL_TRY(memory_of_process("VmRSS"));
    const std::clock_t begin = std::clock();
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(rules));
    const double compile_ms = 1000.0 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    return Json{
        {"engine", compiled.engine}, {"apart", compiled.rules_apart},
        {"reason", compiled.reason}, {"bytes", compiled.memory()},
        {"compile_ms", compile_ms},  {"peak_kib", NETCTL_TRY(memory_of_process("VmHWM")) - before}};
}

/// The packet that the kernel's bench makes of a header.
nc_packet packet_of(const nc_bench_header& header, Family family) {
    nc_packet packet{};
    packet.proto = header.proto ^ IPPROTO_TCP;
    packet.has = NC_HAS_ETHER | NC_HAS_PROTO | NC_HAS_PORTS | NC_HAS_FLAGS |
                 (family == Family::ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6);
    std::copy_n(header.src, 4, packet.src);
    std::copy_n(header.dst, 4, packet.dst);
    packet.sport = header.sport;
    packet.dport = header.dport;
    packet.flags = Tcp{}.flags;
    packet.ether_type = family == Family::ipv4 ? ETH_P_IP : ETH_P_IPV6;
    return packet;
}

/// What packets near the rules read from the tables, counted in cache lines of 64 bytes: the same on every machine.
Result<Json> bench_count(const std::string& kind, Family family, std::size_t count,
                         const std::string& path) {
    constexpr std::size_t packets = 4096;
    const std::vector<Rule> rules = NETCTL_TRY(rules_to_measure(kind, family, count, path));
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(rules));
    if (compiled.engine != "crossing")
        return Error::failed("only the linear form holds these rules: " + compiled.reason);
    TableWalk walk(compiled);
    Random random(1);
    const std::vector<nc_bench_header> headers = headers_of(random, rules, family);
    std::vector<unsigned> lines;
    std::size_t words = 0;
    for (std::size_t i = 0; i < packets; i++) {
        const TableWalk::Found found = walk.find(packet_of(headers[i], family), 0);
        if (found.fault)
            return Error::failed("the tables lead beyond their ends");
        lines.push_back(found.lines);
        words += found.words;
    }
    std::sort(lines.begin(), lines.end());
    Json tables = Json::object();
    const std::map<std::string, TableWalk::Use> uses = walk.uses();
    std::size_t touched = 0;
    for (const classifier::Table& table : compiled.tables) {
        const auto use = uses.find(table.name);
        const TableWalk::Use its = use == uses.end() ? TableWalk::Use{} : use->second;
        touched += its.touched;
        tables[table.name] = {{"bytes", table.bytes.size()},
                              {"lines", static_cast<double>(its.lines) / packets},
                              {"touched", its.touched}};
    }
    return Json{
        {"engine", compiled.engine},
        {"apart", compiled.rules_apart},
        {"bytes", compiled.memory()},
        {"lines", static_cast<double>(std::accumulate(lines.begin(), lines.end(), 0u)) / packets},
        {"lines_99", lines[packets * 99 / 100]},
        {"words", static_cast<double>(words) / packets},
        {"touched", touched},
        {"tables", tables}};
}

Json find_json(Burden burden, const Find& find) {
    Json genes_json = Json::object(), figures = Json::object();
    for (std::size_t i = 0; i < genes; i++)
        genes_json[std::string(bounds_of(i).name)] = find.genes[i];
    constexpr std::array<const char*, burdens> names{"apart_percent", "lines", "bytes_a_rule",
                                                     "compile_ms_1000_rules"};
    for (std::size_t i = 0; i < burdens; i++)
        figures[names[i]] = find.figures[i];
    return Json{{"driven_up", to_string(burden)}, {"figures", figures}, {"genes", genes_json}};
}

/// The worst rule set in each respect, each looked for in a part of the time.
Result<Json> bench_hunt(Family family, std::size_t count, int seconds, std::uint64_t seed) {
    Json finds = Json::array();
    for (std::size_t i = 0; i < burdens; i++) {
        const auto burden = static_cast<Burden>(i);
        const auto told = [&](const Find& find) {
            std::cerr << find_json(burden, find).dump() << "\n";
        };
        const Find worst =
            NETCTL_TRY(hunt(burden, family, count,
                            std::chrono::seconds(seconds / static_cast<int>(burdens)), seed, told));
        finds.push_back(find_json(burden, worst));
    }
    return finds;
}

Result<Json> bench(const std::vector<std::string>& words) {
    const auto family = [](const std::string& word) {
        return word == "6" ? Family::ipv6 : Family::ipv4;
    };
    if (words.size() == 4 && words[0] == "set")
        return bench_set(family(words[1]), std::stoul(words[2]), std::stoi(words[3]));
    if ((words.size() == 5 || words.size() == 6) && words[0] == "rules")
        return bench_rules(words[1], family(words[2]), std::stoul(words[3]), std::stoi(words[4]),
                           words.size() == 6 ? words[5] : "");
    if ((words.size() == 4 || words.size() == 5) && words[0] == "compile")
        return bench_compile(words[1], family(words[2]), std::stoul(words[3]),
                             words.size() == 5 ? words[4] : "");
    if ((words.size() == 4 || words.size() == 5) && words[0] == "count")
        return bench_count(words[1], family(words[2]), std::stoul(words[3]),
                           words.size() == 5 ? words[4] : "");
    if (words.size() == 5 && words[0] == "hunt")
        return bench_hunt(family(words[1]), std::stoul(words[2]), std::stoi(words[3]),
                          std::stoul(words[4]));
    return Error::usage("classify_bench rules acl1|fw1|ipc1|FAMILY 4|6 COUNT ROUNDS [FILE] | "
                        "set 4|6 COUNT ROUNDS | compile|count acl1|fw1|ipc1|FAMILY 4|6 COUNT "
                        "[FILE] | hunt 4|6 COUNT SECONDS SEED");
}

} // namespace

} // namespace netctl::testing

int main(int count, char** words) {
    const auto rows = netctl::testing::bench({words + 1, words + count});
    if (!rows) {
        std::cerr << rows.error().what << "\n";
        return 1;
    }
    std::cout << rows->dump(2) << "\n";
}
