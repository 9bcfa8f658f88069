// SPDX-License-Identifier: GPL-2.0-only
//
// The kernel's classifier with the tables of a rule set, run on packets of one's own: for the prog
// suite and for scripts/bench.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "classifier/engine.hpp"
#include "netctl/abi/bench.h"
#include "netctl/abi/changes.h"
#include "netctl/abi/packet.h"

namespace netctl::testing {

class ClassifierRun {
  public:
    /// What is to be loaded: every program is verified anew for a rule set, which takes time.
    enum class Use : std::uint8_t {
        all,
        classify, ///< `cost()` is not called
    };
    /// Loads the programs with a rule set's tables.
    static Result<ClassifierRun> load(const classifier::Compiled& compiled, Use use = Use::all);
    ClassifierRun(ClassifierRun&& other) noexcept;
    ClassifierRun& operator=(ClassifierRun&&) = delete;
    ~ClassifierRun();

    /// Position of the first rule that matches (NC_NO_RULE, NC_CLASSIFY_ERROR) for each packet;
    /// `set_bits` are theirs.
    Result<std::vector<std::uint32_t>> classify(std::span<const nc_packet> packets,
                                                std::span<const std::uint64_t> set_bits) const;

    /// From now on `classify()` tells indexes into `actions`, as `changes` say; null: ends that.
    void set_changes(const nc_changes* changes) const;

    enum class Stage : std::uint8_t { parse, classify };
    /// Headers for `cost()`, at most NC_BENCH_HEADERS: in what they differ from the frame's.
    void set_headers(std::span<const nc_bench_header> headers) const;
    /// Nanoseconds a packet, of parsing or of parsing and classifying `repeat` packets.
    Result<std::uint32_t> cost(Stage stage, std::span<const std::uint8_t> frame,
                               std::uint32_t repeat) const;

  private:
    struct State;
    explicit ClassifierRun(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

} // namespace netctl::testing
