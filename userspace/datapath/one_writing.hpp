// SPDX-License-Identifier: GPL-2.0-only
//
// One change that is made of many.
#pragma once

#include "datapath/root.hpp"

namespace netctl::datapath {

/// While it lives, whatever this thread opens of the same root, to read or to write, is this one, so that nobody
/// else sees or changes anything in between.
class OneWriting {
  public:
    /// Makes the root where it is missing.
    static Result<OneWriting> begin(const RootOptions& options);
    OneWriting(OneWriting&& other) noexcept;
    OneWriting& operator=(OneWriting&&) = delete;
    ~OneWriting();

    const LockedRoot& root() const { return root_; }

  private:
    explicit OneWriting(LockedRoot root) : root_(std::move(root)) {}
    LockedRoot root_;
};

} // namespace netctl::datapath
