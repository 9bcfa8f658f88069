// SPDX-License-Identifier: GPL-2.0-only
//
// The root: the bpffs directory under which all pins of netctl live, its ABI version, and its lock: readers
// share it, a writer has it alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bpf/dir_lock.hpp"
#include "bpf/pin_dir.hpp"
#include "core/result.hpp"
#include "core/root_options.hpp"
#include "netctl/abi/types.h"

namespace netctl::datapath {

/// A root that was checked: it is in a bpffs, its directories are ours, and it is of our ABI version or new.
/// While it lives no writer changes anything, so what is read through it is one state. So a stream that
/// may take long is read without it, and a process has one at a time: a second would wait for a writer
/// who waits for the first.
class Root {
  public:
    /// For readers: makes and changes nothing. A root that does not exist yet is fine and empty. A root of
    /// another ABI version is an error; so is a wait for the lock that takes too long.
    static Result<Root> open(const RootOptions& options);
    Root(Root&&) noexcept = default;

    const bpf::PinDir& dir() const { return dir_; }
    bool exists() const { return dir_.exists(); }

  protected:
    friend class OneReading;
    Root(const bpf::PinDir& dir, bpf::DirLock lock) : dir_(dir), lock_(std::move(lock)) {}
    bpf::PinDir dir_;
    bpf::DirLock lock_; ///< none: there is nothing to lock, or another Root was made of this one
};

/// Makes one reading of many: while it lives, whatever this thread opens of the same root to read is this one, so
/// that who asks several features gets one state of all. Writers are not asked for meanwhile.
class OneReading {
  public:
    static Result<OneReading> begin(const RootOptions& options);
    OneReading(OneReading&& other) noexcept;
    OneReading& operator=(OneReading&&) = delete;
    ~OneReading();

  private:
    friend class Root;
    explicit OneReading(Root root) : root_(std::move(root)) {}
    Root root_;
};

/// A root that one writer holds: mounted, made and locked. While it lives, no other netctl reads or writes.
class LockedRoot : public Root {
  public:
    /// Mounts bpffs, which it says at once, and makes the root where they are missing; waits for the lock.
    static Result<LockedRoot> acquire(const RootOptions& options);
    /// For those who change what is there: a root that does not exist is not made, and empty.
    static Result<LockedRoot> open(const RootOptions& options);
    LockedRoot(LockedRoot&&) noexcept = default;
    /// Removes the root if nothing is left in it.
    ~LockedRoot();

    /// Raises the root's generation; every commit ends with it.
    Result<std::uint64_t> next_generation() const;

  private:
    using Root::Root;
    static Result<LockedRoot> wait_for(const bpf::PinDir& dir, const RootOptions& options);
    static void leave_as_found(const bpf::PinDir& dir);
    Result<> tidy() const;
};

} // namespace netctl::datapath
