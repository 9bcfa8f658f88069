// SPDX-License-Identifier: GPL-2.0-only
#include "testing/prog_run.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <linux/bpf.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "bpf/per_cpu_sum.hpp"
#include "bpf/standalone.hpp"
#include "bpf/xdp.hpp"
#include "classifier/engine.hpp"
#include "datapath/rule_action.hpp"
#include "netctl/abi/classify.h"

namespace netctl::testing {

namespace {

constexpr std::size_t page = 4096;

bool expired(const nc_set_value& value) {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return value.expires != 0 && static_cast<std::uint64_t>(now.tv_sec) >= value.expires;
}

bool counts(const nc_set_value& value) {
    return !(value.flags & NC_SET_ABSENT) && !expired(value);
}

/// Of an interface that there is not.
constexpr std::uint32_t no_interface = 0x7ffffff0;

std::uint32_t ifindex_of(const std::string& device) {
    return device == "lo" ? if_nametoindex("lo") : no_interface;
}

/// As the program is given it, with targets that every machine has or none has.
Result<nc_action> encode(const Rule& rule, std::uint32_t position, Hook hook) {
    datapath::InstalledRule installed{rule, position, position};
    installed.rule.id = position + 1;
    return datapath::encode_action(
        installed, [hook](const std::string& device) -> Result<std::uint32_t> {
            if (hook == Hook::tc)
                return ifindex_of(device);
            return device == "lo" ? 0U : 1U; // places in xdp's map of targets
        });
}

std::uint32_t wanted_fields(const std::vector<Rule>& rules) {
    std::uint32_t wanted = 0;
    for (const Rule& rule : rules)
        wanted |= datapath::wanted_fields(rule);
    return wanted;
}

Result<> put(const bpf::Object& object, const std::string& outer, std::uint32_t index,
             const bpf::RawMap& inner) {
    const int fd = inner.fd();
    return NETCTL_TRY(object.map(outer)).update(&index, &fd);
}

/// The maps of a set by the outer maps' names.
using SetMaps = std::map<std::string, bpf::RawMap>;

Result<SetMaps> make_set(const TestSet& set) {
    SetMaps maps;
    const auto entries = static_cast<std::uint32_t>(
        std::max<std::size_t>({set.addresses.size() + set.ports.size(), std::size_t{set.room}, 1}));
    if (set.type == NC_SET_PORT) {
        bpf::RawMap ports = NETCTL_TRY(bpf::create_standalone("set_ports", entries));
        for (const auto& [port, value] : set.ports) {
            const nc_set_port key{__builtin_bswap16(port)};
            NETCTL_TRY(ports.update(&key, &value));
        }
        maps.emplace("set_port", std::move(ports));
        return maps;
    }
    const bool hosts = set.type == NC_SET_HOST;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        const std::string name =
            fmt::format("set_{}{}", hosts ? "host" : "cidr", family == Family::ipv4 ? 4 : 6);
        bpf::RawMap map = NETCTL_TRY(bpf::create_standalone(name, entries));
        for (const auto& [prefix, value] : set.addresses) {
            if (prefix.address.family != family)
                continue;
            std::uint8_t key[4 + 16];
            const std::uint32_t length = prefix.length;
            std::memcpy(key, &length, 4);
            std::memcpy(key + 4, prefix.address.bytes.data(), 16);
            NETCTL_TRY(map.update(hosts ? key + 4 : key, &value));
        }
        maps.emplace(name, std::move(map));
    }
    return maps;
}

} // namespace

namespace {

/// The longest element that covers an address, and has not expired; null if there is none.
const nc_set_value* longest_of(const TestSet& set, const Address& address) {
    const std::pair<Prefix, nc_set_value>* longest = nullptr;
    for (const auto& element : set.addresses) {
        if (expired(element.second) || !element.first.contains(address))
            continue;
        if (!longest || element.first.length > longest->first.length)
            longest = &element;
    }
    return longest ? &longest->second : nullptr;
}

} // namespace

bool TestSet::has(const Address& address) const {
    const nc_set_value* longest = longest_of(*this, address);
    return longest && counts(*longest);
}

bool TestSet::excepts(const Address& address) const {
    const nc_set_value* longest = longest_of(*this, address);
    return longest && !counts(*longest);
}

bool TestSet::has(std::uint16_t port) const {
    return std::any_of(ports.begin(), ports.end(), [&](const auto& element) {
        return element.first == port && counts(element.second);
    });
}

classifier::SetOracle oracle(const TestSets& sets) {
    return {[&sets](const std::string& name, const Address& a) { return sets.at(name).has(a); },
            [&sets](const std::string& name, std::uint16_t p) { return sets.at(name).has(p); }};
}

ProgRun::~ProgRun() {
    if (result_)
        munmap(result_, page);
}

ProgRun::ProgRun(ProgRun&& other) noexcept
    : owner_(std::move(other.owner_)),
      object_(other.object_),
      program_(std::move(other.program_)),
      result_map_(std::move(other.result_map_)),
      result_(std::exchange(other.result_, nullptr)),
      chunks_(std::move(other.chunks_)) {}

Result<ProgRun> ProgRun::load(std::shared_ptr<void> owner, bpf::Object object, const char* program,
                              const ProgSetup& setup) {
    ProgRun run(std::move(owner), object);
    NETCTL_TRY(run.prepare(program, setup));
    return run;
}

Result<> ProgRun::prepare(const char* program, const ProgSetup& setup) {
    const classifier::Compiled compiled = NETCTL_TRY(classifier::compile(setup.rules));
    for (const classifier::Table& table : compiled.tables)
        NETCTL_TRY(object_.set_table(table.name, table.bytes));
    for (const classifier::Constant& constant : compiled.constants)
        NETCTL_TRY(object_.set_constant(constant.name, constant.values));

    std::vector<nc_set_use> uses;
    for (const classifier::SetUse& use : compiled.set_uses) {
        nc_set_use entry{};
        entry.field = static_cast<__u8>(use.key);
        entry.type = static_cast<__u8>(setup.sets.at(use.set).type);
        uses.push_back(entry);
    }
    const std::pair<const char*, std::uint32_t> numbers[] = {
        {"wanted", wanted_fields(setup.rules)},
        {"default_verdict", setup.default_verdict},
        {"unparsed_verdict", setup.unparsed_verdict},
        {"simulate", setup.simulate},
        {"n_set_uses", static_cast<std::uint32_t>(uses.size())},
    };
    for (const auto& [name, value] : numbers)
        NETCTL_TRY(object_.set_constant(name, {&value, 1}));
    for (const auto& [name, value] : setup.constants)
        NETCTL_TRY(object_.set_constant(name, {&value, 1}));
    NETCTL_TRY(object_.set_rodata("set_use", std::as_bytes(std::span(uses))));
    NETCTL_TRY(
        object_.set_rodata("log_interval", std::as_bytes(std::span(&setup.log_interval_ns, 1))));
    NETCTL_TRY(object_.set_rodata("log_burst", std::as_bytes(std::span(&setup.log_burst_ns, 1))));
    const auto rules = static_cast<std::uint32_t>(setup.rules.size());
    NETCTL_TRY(object_.set_max_entries("actions", std::max(rules, 1U)));
    NETCTL_TRY(object_.set_max_entries("events", setup.events_bytes));
    NETCTL_TRY(object_.set_max_entries("limit_src", setup.accounts));
    NETCTL_TRY(object_.load());

    std::map<std::string, SetMaps> sets;
    for (std::uint32_t i = 0; i < uses.size(); i++) {
        const std::string& name = compiled.set_uses[i].set;
        if (!sets.contains(name))
            sets.emplace(name, NETCTL_TRY(make_set(setup.sets.at(name))));
        for (const auto& [outer, map] : sets.at(name))
            NETCTL_TRY(put(object_, outer, i, map));
    }
    const bpf::RawMap actions = NETCTL_TRY(object_.map("actions"));
    const bpf::RawMap limits = NETCTL_TRY(object_.map("limits"));
    for (std::uint32_t i = 0; i < rules; i++) {
        nc_action action = NETCTL_TRY(encode(setup.rules[i], i, setup.hook));
        if (const auto use = classifier::use_of_over(setup.rules[i]))
            action.over_set = static_cast<__u8>(
                std::find(compiled.set_uses.begin(), compiled.set_uses.end(), *use) -
                compiled.set_uses.begin());
        NETCTL_TRY(actions.update(&i, &action));
        if (setup.rules[i].limit && setup.rules[i].limit->per.of == Accounts::Of::rule) {
            const nc_limit_key key{i + 1, {}, 0, 0, 0};
            const nc_limit_state fresh{};
            NETCTL_TRY(limits.update(&key, &fresh));
        }
        if (action.flags & NC_ACTION_RATE) {
            const nc_rate_state fresh{};
            NETCTL_TRY(NETCTL_TRY(object_.map("rates")).update(&action.rule_id, &fresh));
        }
    }
    for (std::uint32_t chunk = 0; chunk * NC_COUNTER_CHUNK < rules; chunk++) {
        chunks_.push_back(NETCTL_TRY(bpf::create_standalone("counter_chunk", NC_COUNTER_CHUNK)));
        NETCTL_TRY(put(object_, "counters", chunk, chunks_.back()));
    }
    if (setup.hook == Hook::xdp) {
        const std::uint32_t first = 0;
        const std::uint32_t loopback[2] = {if_nametoindex("lo"), 0};
        NETCTL_TRY(NETCTL_TRY(object_.map("devices")).update(&first, loopback));
    }

    result_map_ = NETCTL_TRY(object_.map("result"));
    void* mapped = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, result_map_.fd(), 0);
    if (mapped == MAP_FAILED)
        return Error::system(errno, "cannot map the program's result");
    result_ = static_cast<nc_result*>(mapped);
    program_ = NETCTL_TRY(object_.program(program));
    return {};
}

Result<std::uint32_t> ProgRun::run(std::span<const std::uint8_t> frame,
                                   std::optional<std::uint32_t> linear) const {
    return NETCTL_TRY(run_xdp(frame, linear)).action;
}

Result<XdpRun> ProgRun::run_xdp(std::span<const std::uint8_t> frame,
                                std::optional<std::uint32_t> linear) const {
    XdpRun done;
    done.frame.resize(frame.size() + 64);
    xdp_md context{};
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<__u32>(program_.fd());
    attributes.test.data_in = reinterpret_cast<std::uintptr_t>(frame.data());
    attributes.test.data_size_in = static_cast<__u32>(frame.size());
    attributes.test.data_out = reinterpret_cast<std::uintptr_t>(done.frame.data());
    attributes.test.data_size_out = static_cast<__u32>(done.frame.size());
    if (linear) {
        context.data_end = *linear;
        attributes.test.ctx_in = reinterpret_cast<std::uintptr_t>(&context);
        attributes.test.ctx_size_in = sizeof context;
    }
    if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof attributes) != 0)
        return Error::system(
            errno, fmt::format("cannot run the program over a frame of {} bytes", frame.size()));
    done.action = attributes.test.retval;
    done.frame.resize(attributes.test.data_size_out);
    return done;
}

Result<SkbRun> ProgRun::run_skb(std::span<const std::uint8_t> frame, const __sk_buff& skb) const {
    SkbRun done;
    done.skb = skb;
    done.frame.resize(frame.size() + 64);
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<__u32>(program_.fd());
    attributes.test.data_in = reinterpret_cast<std::uintptr_t>(frame.data());
    attributes.test.data_size_in = static_cast<__u32>(frame.size());
    attributes.test.data_out = reinterpret_cast<std::uintptr_t>(done.frame.data());
    attributes.test.data_size_out = static_cast<__u32>(done.frame.size());
    attributes.test.ctx_in = reinterpret_cast<std::uintptr_t>(&skb);
    attributes.test.ctx_size_in = sizeof skb;
    attributes.test.ctx_out = reinterpret_cast<std::uintptr_t>(&done.skb);
    attributes.test.ctx_size_out = sizeof done.skb;
    if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof attributes) != 0)
        return Error::system(
            errno, fmt::format("cannot run the program over a frame of {} bytes", frame.size()));
    done.action = static_cast<std::int32_t>(attributes.test.retval);
    done.frame.resize(attributes.test.data_size_out);
    return done;
}

Result<std::uint32_t> ProgRun::time(std::span<const std::uint8_t> frame,
                                    std::uint32_t repeat) const {
    return NETCTL_TRY(bpf::test_run(program_, frame, repeat)).duration_ns;
}

Result<bpf::RawMap> ProgRun::set_map(const std::string& outer, std::uint32_t use) const {
    std::uint32_t id = 0;
    if (!NETCTL_TRY(NETCTL_TRY(object_.map(outer)).lookup(&use, &id)))
        return Error::failed(fmt::format("{} holds no map for use {}", outer, use));
    return bpf::RawMap::open_id(id);
}

Result<nc_stats> ProgRun::stats() const {
    return bpf::sum_per_cpu<nc_stats>(NETCTL_TRY(object_.map("stats")), 0);
}

Result<nc_rejects> ProgRun::rejects() const {
    return bpf::sum_per_cpu<nc_rejects>(NETCTL_TRY(object_.map("rejects")), 0);
}

Result<nc_over_adds> ProgRun::over_adds() const {
    return bpf::sum_per_cpu<nc_over_adds>(NETCTL_TRY(object_.map("over_adds")), 0);
}

Result<nc_syncookies> ProgRun::syncookies() const {
    return bpf::sum_per_cpu<nc_syncookies>(NETCTL_TRY(object_.map("syncookies")), 0);
}

Result<nc_counter> ProgRun::counter(std::size_t position) const {
    return bpf::sum_per_cpu<nc_counter>(chunks_[position / NC_COUNTER_CHUNK],
                                        static_cast<std::uint32_t>(position % NC_COUNTER_CHUNK));
}

} // namespace netctl::testing
