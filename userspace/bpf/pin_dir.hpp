// SPDX-License-Identifier: GPL-2.0-only
//
// Directories in bpffs: names, creation, replacement of pins, removal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// bpffs refuses a dot in a name: `.`, `%`, `/`, `:`, `~` and what is not printable become %xx.
std::string encode_pin_name(std::string_view name);
std::string decode_pin_name(std::string_view name);

/// Mounts a bpffs if `path` is not inside one: at /sys/fs/bpf if the path is below it, else at the
/// path itself, which is made. Returns the mount point if it mounted, an empty string if not.
Result<std::string> ensure_bpffs(const std::string& path);
/// Whether the path exists and lies in a bpffs.
bool in_bpffs(const std::string& path);

class PinDir {
  public:
    explicit PinDir(std::string path) : path_(std::move(path)) {}

    const std::string& path() const { return path_; }
    std::string path_of(const std::string& name) const { return path_ + "/" + name; }
    PinDir sub(const std::string& name) const { return PinDir(path_of(name)); }
    /// Its own name, encoded as it is.
    std::string name() const { return path_.substr(path_.rfind('/') + 1); }
    bool exists() const;
    bool has(const std::string& name) const;
    /// Makes the directory and those above it, as far as they are missing.
    Result<> create() const;
    /// Names in it, as they are (encoded), sorted; empty if there is no such directory.
    std::vector<std::string> list() const;
    /// Pins a map under `name`, atomically in the place of an older pin.
    Result<> replace(const std::string& name, const RawMap& map) const;
    /// The same for a program.
    Result<> replace(const std::string& name, const Program& program) const;
    /// Renames within this directory.
    Result<> rename(const std::string& from, const std::string& to) const;
    /// Removes one pin; no error if it is not there.
    Result<> unpin(const std::string& name) const;
    /// Removes the directory with all below it; no error if it is not there.
    Result<> remove_all() const;
    /// Removes the directory if it is empty; no error if not.
    void remove_if_empty() const;

  private:
    std::string path_;
};

/// An exclusive flock on a directory, released when this goes.
class DirLock {
  public:
    /// Waits until it has the lock.
    static Result<DirLock> acquire(const std::string& directory);
    /// Does not wait; the error's code is EWOULDBLOCK if another holds it.
    static Result<DirLock> try_acquire(const std::string& directory);
    /// Whether the locked directory is still the one at this path: its last user may have removed
    /// it while we waited.
    bool still_at(const std::string& directory) const;

  private:
    explicit DirLock(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

} // namespace netctl::bpf
