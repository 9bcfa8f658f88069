// SPDX-License-Identifier: GPL-2.0-only
//
// The root: the bpffs directory under which all pins of netctl live, its ABI version, and the
// lock that every writer holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/result.hpp"
#include "netctl/abi/types.h"

namespace netctl::datapath {

/// A root that was checked: it is in a bpffs, and of our ABI version or new.
class Root {
  public:
    /// For readers: changes nothing. A root that does not exist yet is fine and empty. A root of
    /// another ABI version is an error.
    static Result<Root> open(const std::string& path);

    const bpf::PinDir& dir() const { return dir_; }
    bool exists() const { return dir_.exists(); }

  protected:
    explicit Root(std::string path) : dir_(std::move(path)) {}
    Result<> check_version() const;
    bpf::PinDir dir_;
};

/// A root that one writer holds: mounted, made and locked. While it lives, no other netctl writes.
class LockedRoot : public Root {
  public:
    /// Mounts bpffs and makes the root where they are missing; waits for the lock. What it did to
    /// the host is told in `notes`.
    static Result<LockedRoot> acquire(const std::string& path, std::vector<std::string>& notes);
    LockedRoot(LockedRoot&&) = default;
    ~LockedRoot();

    /// Raises the root's generation; every commit ends with it.
    Result<std::uint64_t> next_generation() const;

  private:
    LockedRoot(std::string path, bpf::DirLock lock)
        : Root(std::move(path)), lock_(std::move(lock)) {}
    bpf::DirLock lock_;
};

} // namespace netctl::datapath
