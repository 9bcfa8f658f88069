// SPDX-License-Identifier: GPL-2.0-only
//
// How much a tracer may hold of what strangers send.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace netctl::trace {

/// Bytes held for all connections of a tracer together: segments behind holes, heads under way,
/// transactions that are not over, and the connections themselves. Who wants more than there is gives
/// up something of his own; that is counted. What is counted is what is stored, without the allocator's share.
class MemoryBudget {
  public:
    static constexpr std::size_t default_limit = 48 * 1024 * 1024;

    explicit MemoryBudget(std::size_t limit = default_limit) : limit_(limit) {}

    void take(std::size_t bytes) { used_ += bytes; }
    void give(std::size_t bytes) { used_ -= bytes < used_ ? bytes : used_; }
    bool exceeded() const { return used_ > limit_; }
    std::size_t used() const { return used_; }

  private:
    std::size_t limit_;
    std::size_t used_ = 0;
};

/// A part of a budget that one object holds, and gives back when it goes.
class MemoryShare {
  public:
    explicit MemoryShare(MemoryBudget* budget) : budget_(budget) {}
    MemoryShare(const MemoryShare&) = delete;
    MemoryShare& operator=(const MemoryShare&) = delete;
    ~MemoryShare() { set(0); }

    void set(std::size_t bytes) {
        if (bytes > bytes_)
            budget_->take(bytes - bytes_);
        else
            budget_->give(bytes_ - bytes);
        bytes_ = bytes;
    }
    std::size_t bytes() const { return bytes_; }
    bool exceeded() const { return budget_->exceeded(); }

  private:
    MemoryBudget* budget_;
    std::size_t bytes_ = 0;
};

} // namespace netctl::trace
