// SPDX-License-Identifier: GPL-2.0-only
//
// Locks on directories in bpffs.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

enum class LockMode { shared, exclusive };

/// How long to wait for a lock.
struct LockWait {
    std::chrono::steady_clock::time_point end;
    std::function<void()> slow; ///< called when the wait has taken a second
};

/// A flock on a directory, released when this goes. One that was moved from holds nothing.
class DirLock {
  public:
    DirLock() = default; ///< holds nothing
    /// The error's code is ETIMEDOUT if the wait is over, EINTR if a signal came that the program catches.
    static Result<DirLock> acquire(const PinDir& directory, LockMode mode, const LockWait& wait);
    /// Does not wait; the error's code is EWOULDBLOCK if another holds it. Exclusive.
    static Result<DirLock> try_acquire(const PinDir& directory);
    /// Whether somebody holds a lock that try_acquire() took, asked without touching it: whoever wants it
    /// at this moment gets it.
    static bool is_held(const PinDir& directory);

    explicit operator bool() const { return static_cast<bool>(fd_); }
    /// Whether the locked directory is still the one at this path: its last user may have removed
    /// it while we waited.
    bool still_at(const PinDir& directory) const;

  private:
    explicit DirLock(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

/// A process that holds a lock.
struct LockHolder {
    int pid = 0;
    std::string name; ///< as its owner chose it
};
/// Those who hold the flock of a directory, as far as this PID namespace knows them.
std::vector<LockHolder> lock_holders(const PinDir& directory);

} // namespace netctl::bpf
