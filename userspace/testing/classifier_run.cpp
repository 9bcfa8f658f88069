// SPDX-License-Identifier: GPL-2.0-only
#include "testing/classifier_run.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "bpf/object.hpp"
#include "bpf/xdp.hpp"
#include "netctl/abi/classify.h"

#include "classifier_bench.skel.h" // needs the types above

namespace netctl::testing {

namespace {

/// The array of one data section of a loaded program, in memory that the program shares.
template <class T> class SharedArray {
  public:
    SharedArray() = default;
    static Result<SharedArray> open(const bpf::Object& object, const std::string& section) {
        SharedArray array;
        array.memory_ = NETCTL_TRY(bpf::MappedArray::open(NETCTL_TRY(object.map(section)), true));
        return array;
    }
    T* data() const { return reinterpret_cast<T*>(memory_.bytes().data()); }

  private:
    bpf::MappedArray memory_;
};

} // namespace

struct ClassifierRun::State {
    bpf::Skeleton<classifier_bench> skeleton;
    bpf::Program classify_packets{}, bench_parse{}, bench_classify{};
    SharedArray<nc_packet> packets{};
    SharedArray<std::uint64_t> set_bits{};
    SharedArray<std::uint32_t> positions{}, count{}, has_changes{};
    SharedArray<nc_changes> changes{};
    SharedArray<nc_bench_header> headers{};
    SharedArray<nc_bench_walk> walk{};
};

ClassifierRun::ClassifierRun(std::unique_ptr<State> state) : state_(std::move(state)) {}
ClassifierRun::ClassifierRun(ClassifierRun&& other) noexcept = default;
ClassifierRun::~ClassifierRun() = default;

Result<ClassifierRun> ClassifierRun::load(const classifier::Compiled& compiled, Use use) {
    bpf::capture_libbpf_messages();
    State state{.skeleton = NETCTL_TRY(bpf::Skeleton<classifier_bench>::open())};
    const bpf::Object object = state.skeleton.object();
    for (const classifier::Table& table : compiled.tables)
        NETCTL_TRY(object.set_table(table.name, table.bytes));
    for (const classifier::Constant& constant : compiled.constants)
        NETCTL_TRY(object.set_constant(constant.name, constant.values));
    if (use == Use::classify)
        for (const char* name : {"bench_parse", "bench_classify"})
            NETCTL_TRY(object.set_autoload(name, false));
    NETCTL_TRY(object.load());
    state.classify_packets = NETCTL_TRY(object.program("classify_packets"));
    if (use == Use::all) {
        state.bench_parse = NETCTL_TRY(object.program("bench_parse"));
        state.bench_classify = NETCTL_TRY(object.program("bench_classify"));
    }
    state.packets = NETCTL_TRY(SharedArray<nc_packet>::open(object, ".data.packets"));
    state.set_bits = NETCTL_TRY(SharedArray<std::uint64_t>::open(object, ".data.set_bits"));
    state.positions = NETCTL_TRY(SharedArray<std::uint32_t>::open(object, ".data.positions"));
    state.count = NETCTL_TRY(SharedArray<std::uint32_t>::open(object, ".data.count"));
    state.has_changes = NETCTL_TRY(SharedArray<std::uint32_t>::open(object, ".data.has_changes"));
    state.changes = NETCTL_TRY(SharedArray<nc_changes>::open(object, ".data.block"));
    state.headers = NETCTL_TRY(SharedArray<nc_bench_header>::open(object, ".data.headers"));
    state.walk = NETCTL_TRY(SharedArray<nc_bench_walk>::open(object, ".data.walk"));
    return ClassifierRun(std::make_unique<State>(std::move(state)));
}

Result<std::vector<std::uint32_t>>
ClassifierRun::classify(std::span<const nc_packet> packets,
                        std::span<const std::uint64_t> set_bits) const {
    std::vector<std::uint32_t> positions;
    const std::array<std::uint8_t, 64> frame{};
    for (std::size_t start = 0; start < packets.size(); start += NC_BENCH_PACKETS) {
        std::size_t count = std::min<std::size_t>(NC_BENCH_PACKETS, packets.size() - start);
        std::ranges::copy(packets.subspan(start, count), state_->packets.data());
        std::ranges::copy(set_bits.subspan(start, count), state_->set_bits.data());
        std::fill_n(state_->positions.data(), count, ~1u); // if the program does not get there
        *state_->count.data() = static_cast<std::uint32_t>(count);
        NETCTL_TRY(bpf::test_run(state_->classify_packets, frame));
        positions.insert(positions.end(), state_->positions.data(),
                         state_->positions.data() + count);
    }
    return positions;
}

void ClassifierRun::set_changes(const nc_changes* changes) const {
    *state_->has_changes.data() = changes != nullptr;
    if (changes)
        *state_->changes.data() = *changes;
}

void ClassifierRun::set_headers(std::span<const nc_bench_header> headers) const {
    std::ranges::copy(headers, state_->headers.data());
    *state_->walk.data() = {0, static_cast<std::uint32_t>(headers.size())};
}

Result<std::uint32_t> ClassifierRun::cost(Stage stage, std::span<const std::uint8_t> frame,
                                          std::uint32_t repeat) const {
    const bpf::Program& program =
        stage == Stage::parse ? state_->bench_parse : state_->bench_classify;
    return NETCTL_TRY(bpf::test_run(program, frame, repeat)).duration_ns;
}

} // namespace netctl::testing
