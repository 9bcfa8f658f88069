// SPDX-License-Identifier: GPL-2.0-only
#include "testing/set_run.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

#include "bpf/object.hpp"
#include "bpf/standalone.hpp"
#include "bpf/xdp.hpp"
#include "datapath/base_store.hpp"
#include "datapath/set_base.hpp"
#include "netctl/abi/classify.h"

#include "sets_bench.skel.h" // needs the types above

namespace netctl::testing {

namespace {

std::array<std::uint8_t, 20> key_of(const Prefix& prefix) {
    std::array<std::uint8_t, 20> key{};
    const std::uint32_t length = prefix.length;
    std::memcpy(key.data(), &length, sizeof length);
    std::memcpy(key.data() + 4, prefix.address.bytes.data(), 16);
    return key;
}

Result<> put(const bpf::Object& object, const std::string& outer, std::uint32_t index,
             const bpf::RawMap& inner) {
    const int fd = inner.fd();
    return NETCTL_TRY(object.map(outer)).update(&index, &fd);
}

} // namespace

nc_packet packet_from(const Address& source) {
    nc_packet packet{};
    packet.has = source.family == Family::ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6;
    std::memcpy(packet.src, source.bytes.data(), sizeof packet.src);
    return packet;
}

struct SetRun::State {
    bpf::Skeleton<sets_bench> skeleton;
    datapath::BaseStore bases;
    bpf::Program ask{};
    std::array<bpf::Program, 4> stages{};
    std::vector<std::array<bpf::RawMap, 2>> live{};
    bpf::MappedArray packets{}, answers{}, count{}, headers{}, walk{};
};

SetRun::SetRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
SetRun::SetRun(SetRun&& other) noexcept = default;
SetRun::~SetRun() = default;

Result<SetRun> SetRun::load(const std::vector<SetInput>& sets, std::span<const Prefix> floor) {
    bpf::capture_libbpf_messages();
    State state{.skeleton = NETCTL_TRY(bpf::Skeleton<sets_bench>::open()),
                .bases = NETCTL_TRY(datapath::BaseStore::make())};
    const bpf::Object object = state.skeleton.object();
    std::vector<nc_set_use> uses;
    for (std::size_t i = 0; i < sets.size(); i++) {
        nc_set_use use{};
        use.field = NC_FIELD_SRC;
        use.type = static_cast<__u8>(sets[i].type);
        use.number = static_cast<__u16>(i + 1);
        uses.push_back(use);
    }
    const auto count = static_cast<std::uint32_t>(uses.size());
    NETCTL_TRY(object.set_constant("n_set_uses", {&count, 1}));
    NETCTL_TRY(object.set_rodata("set_use", std::as_bytes(std::span(uses))));
    const auto room = static_cast<std::uint32_t>(std::max<std::size_t>(floor.size(), 1));
    for (const char* name : {"floor_host4", "floor_host6", "floor_cidr4", "floor_cidr6"})
        NETCTL_TRY(object.set_max_entries(name, room));
    NETCTL_TRY(state.bases.share(object));
    NETCTL_TRY(object.load());

    state.ask = NETCTL_TRY(object.program("ask_packets"));
    const std::array names{"bench_parse", "bench_set", "bench_hash", "bench_trie"};
    for (std::size_t i = 0; i < names.size(); i++)
        state.stages[i] = NETCTL_TRY(object.program(names[i]));
    const auto map = [&](const char* section) -> Result<bpf::MappedArray> {
        return bpf::MappedArray::open(NETCTL_TRY(object.map(section)), true);
    };
    state.packets = NETCTL_TRY(map(".data.packets"));
    state.answers = NETCTL_TRY(map(".data.answers"));
    state.count = NETCTL_TRY(map(".data.count"));
    state.headers = NETCTL_TRY(map(".data.headers"));
    state.walk = NETCTL_TRY(map(".data.walk"));

    for (std::uint32_t i = 0; i < count; i++) {
        const SetInput& set = sets[i];
        const bool hosts = set.type == NC_SET_HOST;
        state.live.emplace_back();
        for (const int family : {4, 6}) {
            const std::string name = fmt::format("set_{}{}", hosts ? "host" : "cidr", family);
            bpf::RawMap live = NETCTL_TRY(bpf::create_standalone(
                name, static_cast<std::uint32_t>(std::max<std::size_t>(set.live.size(), 4096))));
            for (const auto& [prefix, value] : set.live)
                if (static_cast<int>(prefix.address.family) == family)
                    NETCTL_TRY(live.update(key_of(prefix).data() + (hosts ? 4 : 0), &value));
            NETCTL_TRY(put(object, name, i, live));
            state.live.back()[family == 6] = std::move(live);
        }
    }
    for (const Prefix& prefix : floor) {
        const int family = static_cast<int>(prefix.address.family);
        const nc_set_value value{};
        if (prefix.length == prefix.address.bits())
            NETCTL_TRY(NETCTL_TRY(object.map(fmt::format("floor_host{}", family)))
                           .update(prefix.address.bytes.data(), &value));
        NETCTL_TRY(NETCTL_TRY(object.map(fmt::format("floor_cidr{}", family)))
                       .update(key_of(prefix).data(), &value));
    }
    SetRun made(std::make_unique<State>(std::move(state)));
    for (std::size_t i = 0; i < sets.size(); i++)
        NETCTL_TRY(made.set_base(i, sets[i].base));
    return made;
}

Result<> SetRun::set_base(std::size_t set, std::span<const Prefix> base) const {
    std::array<std::vector<nc_base_line>, 2> lines;
    for (const Family family : {Family::ipv4, Family::ipv6}) {
        std::vector<Prefix> of_family;
        std::copy_if(base.begin(), base.end(), std::back_inserter(of_family),
                     [&](const Prefix& prefix) { return prefix.address.family == family; });
        lines[family == Family::ipv6] = NETCTL_TRY(datapath::build_base(family, of_family));
    }
    const datapath::BaseStore& bases = state_->bases;
    bases.put_in_force(
        NETCTL_TRY(bases.prepare(static_cast<std::uint32_t>(set + 1), {lines[0], lines[1]})));
    return bases.settle();
}

const bpf::RawMap& SetRun::live(std::size_t set, Family family) const {
    return state_->live[set][family == Family::ipv6];
}

Result<std::vector<std::uint64_t>> SetRun::ask(std::span<const nc_packet> packets) const {
    std::vector<std::uint64_t> answers;
    const std::array<std::uint8_t, 64> frame{};
    for (std::size_t start = 0; start < packets.size(); start += NC_BENCH_PACKETS) {
        const auto count = static_cast<std::uint32_t>(
            std::min<std::size_t>(NC_BENCH_PACKETS, packets.size() - start));
        std::memcpy(state_->packets.bytes().data(), packets.data() + start,
                    count * sizeof(nc_packet));
        std::memset(state_->answers.bytes().data(), 0xff, count * sizeof(std::uint64_t));
        std::memcpy(state_->count.bytes().data(), &count, sizeof count);
        NETCTL_TRY(bpf::test_run(state_->ask, frame));
        const auto* found = reinterpret_cast<const std::uint64_t*>(state_->answers.bytes().data());
        answers.insert(answers.end(), found, found + count);
    }
    return answers;
}

void SetRun::set_headers(std::span<const nc_bench_header> headers) const {
    std::memcpy(state_->headers.bytes().data(), headers.data(), headers.size_bytes());
    const nc_bench_walk walk{0, static_cast<std::uint32_t>(headers.size())};
    std::memcpy(state_->walk.bytes().data(), &walk, sizeof walk);
}

Result<std::uint32_t> SetRun::cost(Stage stage, std::span<const std::uint8_t> frame,
                                   std::uint32_t repeat) const {
    const bpf::Program& program = state_->stages[static_cast<std::size_t>(stage)];
    return NETCTL_TRY(bpf::test_run(program, frame, repeat)).duration_ns;
}

} // namespace netctl::testing
