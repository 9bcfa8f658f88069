// SPDX-License-Identifier: GPL-2.0-only
//
// What samples add up to: stacks of named functions, and how much of all each function has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/text.hpp"
#include "features/trace/profile/places.hpp"
#include "features/trace/profile/profile.hpp"

namespace netctl::trace::profile {

struct Stack {
    std::uint32_t pid = 0;
    std::string comm;
    std::uint64_t cgroup_id = 0;
    std::vector<std::uint32_t>
        frames; ///< of Stacks::frames, the outermost first: the process's, then the kernel's
    std::uint64_t samples = 0; ///< or waits
    std::uint64_t amount = 0;  ///< the same, or the nanoseconds of the waits
    bool ends_early = false;   ///< its outermost frame is none where threads begin
};

struct Function {
    std::uint32_t frame = 0;
    std::uint64_t self = 0;  ///< amount of stacks that it is the innermost of
    std::uint64_t total = 0; ///< amount of stacks that it is in
};

struct Stacks {
    std::vector<Frame> frames;
    std::vector<Stack> stacks; ///< by amount, the most first
    std::uint64_t samples = 0;
    std::uint64_t amount = 0;
    std::uint64_t ends_early = 0; ///< samples
    std::uint64_t gone = 0; ///< samples of processes that were gone before they could be looked at
    std::uint64_t no_room = 0; ///< samples that are in no stack: there were too many of these

    /// By what they have themselves, the most first; with equals, by name.
    std::vector<Function> functions() const;
};

/// Adds samples up, stack by stack.
class StackCounts {
  public:
    void add(const Sample& sample);
    /// Finds the names. Of waits, the innermost frames are taken off that all of them have.
    Stacks finish();

  private:
    static constexpr std::size_t most_stacks = 500'000;

    struct Counted {
        std::string comm;
        std::vector<Places::Id> user, kernel; ///< the innermost first
        std::uint64_t samples = 0;
        std::uint64_t amount = 0;
        std::uint32_t pid = 0;
        std::uint64_t cgroup_id = 0;
        bool gone = false;
        bool kernel_thread = false;
    };

    Places places_;
    std::unordered_map<std::string, Counted> counted_; ///< by the bytes that tell them apart
    std::uint64_t no_room_ = 0;
};

/// Each stack as flamegraph.pl and its like read them, in the order of their text: `comm;outermost;…;innermost amount`, functions
/// of the kernel with `_[k]` and compiled ones with `_[j]` behind them.
Text folded(const Stacks& stacks);
/// `name_[k]`, for instance.
std::string folded_name(const Frame& frame);

} // namespace netctl::trace::profile
