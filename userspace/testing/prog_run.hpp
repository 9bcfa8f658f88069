// SPDX-License-Identifier: GPL-2.0-only
//
// A packet filter loaded for tests: rules and sets in, frames through BPF_PROG_TEST_RUN, verdicts and
// counters out. Nothing is attached or pinned.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linux/bpf.h>

#include "bpf/object.hpp"
#include "classifier/reference.hpp"
#include "core/rule.hpp"
#include "netctl/abi/rule.h"

namespace netctl::testing {

/// A set as tests know it: what its maps hold, and the plain answer whether it has something.
struct TestSet {
    nc_set_type type = NC_SET_HOST;
    std::vector<std::pair<Prefix, nc_set_value>> addresses{};
    std::vector<std::pair<std::uint16_t, nc_set_value>> ports{};
    std::uint32_t room = 0; ///< for elements; 0: as many as are there

    bool has(const Address& address) const;
    /// Whether an exception is why it has not.
    bool excepts(const Address& address) const;
    bool has(std::uint16_t port) const;
};

using TestSets = std::map<std::string, TestSet>;

/// The sets as the reference matcher asks for them. `sets` must outlive the result.
classifier::SetOracle oracle(const TestSets& sets);

struct ProgSetup {
    Hook hook = Hook::xdp;
    std::vector<Rule>
        rules{}; ///< ids and counter slots are their positions plus one, and positions
    TestSets sets{};
    nc_verdict default_verdict = NC_VERDICT_PASS;
    nc_verdict unparsed_verdict = NC_VERDICT_DROP;
    bool simulate = false;
    std::uint64_t log_interval_ns = 0; ///< 0: no bound
    std::uint64_t log_burst_ns = 0;
    std::uint32_t events_bytes = 1 << 16;
    std::uint32_t accounts =
        1024; ///< room for those of limits; a map like this forgets some before it is full
    std::map<std::string, std::uint32_t> constants{}; ///< further ones of the program
};

/// What an XDP program did with a frame: its return value, and the frame.
struct XdpRun {
    std::uint32_t action = 0;
    std::vector<std::uint8_t> frame;
};

/// What a classifier did with an skb: its return value, the skb's fields, and the frame.
struct SkbRun {
    std::int32_t action = 0;
    __sk_buff skb{};
    std::vector<std::uint8_t> frame;
};

class ProgRun {
  public:
    /// A redirect or mirror to `lo` finds its target; one to any other device does not.
    template <class S> static Result<ProgRun> load(const char* program, const ProgSetup& setup) {
        auto skeleton = std::make_shared<bpf::Skeleton<S>>(NETCTL_TRY(bpf::Skeleton<S>::open()));
        const bpf::Object object = skeleton->object();
        return load(std::move(skeleton), object, program, setup);
    }
    ~ProgRun();
    ProgRun(ProgRun&& other) noexcept;
    ProgRun& operator=(ProgRun&&) = delete;

    /// Runs an XDP program. With `linear`, only that many bytes lie in the first buffer and
    /// the rest in fragments; kernels that cannot do that refuse (EINVAL).
    Result<XdpRun> run_xdp(std::span<const std::uint8_t> frame,
                           std::optional<std::uint32_t> linear = {}) const;
    /// The same; the program's return value.
    Result<std::uint32_t> run(std::span<const std::uint8_t> frame,
                              std::optional<std::uint32_t> linear = {}) const;
    /// Runs a classifier; `skb` may set mark, priority, tstamp, wire_len and GSO fields. Frames up to
    /// 3 KiB on every kernel.
    Result<SkbRun> run_skb(std::span<const std::uint8_t> frame, const __sk_buff& skb = {}) const;
    /// Nanoseconds of one run, mean of `repeat`.
    Result<std::uint32_t> time(std::span<const std::uint8_t> frame, std::uint32_t repeat) const;

    /// What a simulating program found out in its last run.
    const nc_result& result() const { return *result_; }
    /// What a simulating program is to be told that this host has for the packets of the next runs.
    void tell(const nc_told& told) const { result_->told = told; }
    /// Sums over all CPUs.
    Result<nc_stats> stats() const;
    Result<nc_rejects> rejects() const;
    Result<nc_over_adds> over_adds() const;
    Result<nc_syncookies> syncookies() const;
    Result<nc_counter> counter(std::size_t position) const;
    Result<bpf::RawMap> map(const std::string& name) const { return object_.map(name); }
    /// The inner map of set use `use` in `outer`, as another tool would write it.
    Result<bpf::RawMap> set_map(const std::string& outer, std::uint32_t use) const;

  private:
    ProgRun(std::shared_ptr<void> owner, bpf::Object object)
        : owner_(std::move(owner)), object_(object) {}
    static Result<ProgRun> load(std::shared_ptr<void> owner, bpf::Object object,
                                const char* program, const ProgSetup& setup);
    Result<> prepare(const char* program, const ProgSetup& setup);

    std::shared_ptr<void> owner_; // the skeleton, whose object is looked at
    bpf::Object object_;
    bpf::Program program_;
    bpf::RawMap result_map_;
    nc_result* result_ = nullptr; // mapped
    std::vector<bpf::RawMap> chunks_;
};

} // namespace netctl::testing
