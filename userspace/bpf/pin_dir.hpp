// SPDX-License-Identifier: GPL-2.0-only
//
// Directories in bpffs, reached through descriptors: names, creation, replacement of pins, removal.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// bpffs refuses a dot in a name: `.`, `%`, `/`, `:`, `~` and what is not printable become %xx.
std::string encode_pin_name(std::string_view name);
std::string decode_pin_name(std::string_view name);

/// A directory at or below a root in bpffs, there or not.
///
/// Every operation walks to it from a descriptor of the bpffs, name by name: no symbolic link is
/// followed, no other mount is entered, and each directory on the way has to belong to root or to us and
/// must not be writable by others (above the root: unless it is sticky, as /tmp is). So whatever is read,
/// made or removed through this is on that bpffs, and nobody else can have put it there (invariant I11).
/// There is no empty one: it can be copied, and moving is copying.
class PinDir {
  public:
    /// The root at `path`, as `root_path()` gives it. If there is nothing on the way that is a bpffs, it is
    /// one that does not exist, and that cannot be made. Errors: a directory on the way that may not be
    /// looked at, or is not to be trusted; a path that is there and in no bpffs.
    static Result<PinDir> open(const std::string& path);
    PinDir(const PinDir&) = default;
    PinDir& operator=(const PinDir&) = default;
    ~PinDir() = default;

    /// The same path, where nothing is and nothing can be made: for readers that found nothing.
    PinDir absent() const;

    /// For messages; nothing is reached by it.
    const std::string& path() const { return path_; }
    /// A directory or pin in it, for messages.
    std::string path_of(const std::string& name) const { return path_ + "/" + name; }
    PinDir sub(const std::string& name) const;
    /// Its own name and that of the directory it is in, encoded as they are.
    std::string name() const;
    std::string parent_name() const;

    bool exists() const;
    /// Whether there is a pin or a directory of this name. Where it cannot be known, has() says no, and
    /// look_for() is an error: ask it where a no has something made or removed.
    bool has(const std::string& name) const;
    Result<bool> look_for(const std::string& name) const;
    /// Whether every directory below is one that may be trusted; the error names the first that is not.
    Result<> check_below() const;
    /// Makes the directory and those above it, as far as they are missing.
    Result<> create() const;
    /// Names in it, as they are (encoded), sorted, but for directories that remove_all() has not done with; empty
    /// if there is no such directory. For list() also where
    /// it cannot be read; ask names() where nothing in it has something removed.
    std::vector<std::string> list() const;
    Result<std::vector<std::string>> names() const;

    /// Opens a pin. The error's code is ENOENT if it is not there. On a file system that is mounted
    /// read-only a map can be read, and a link cannot be opened (EROFS).
    Result<RawMap> open_map(const std::string& name) const;
    Result<Program> open_program(const std::string& name) const;
    Result<Link> open_link(const std::string& name) const;
    /// Pins under a name that is free.
    Result<> pin(const std::string& name, const RawMap& map) const;
    Result<> pin(const std::string& name, const Program& program) const;
    Result<> pin(const std::string& name, const Link& link) const;
    /// Pins under `name`, atomically in the place of an older pin.
    Result<> replace(const std::string& name, const RawMap& map) const;
    Result<> replace(const std::string& name, const Program& program) const;
    Result<> replace(const std::string& name, const Link& link) const;

    /// Renames within this directory.
    Result<> rename(const std::string& from, const std::string& to) const;
    /// Removes one pin; no error if it is not there.
    Result<> unpin(const std::string& name) const;
    /// Removes the directory with all below it; no error if it is not there. Never the root itself. While that
    /// goes on it is called `NAME~gone`.
    Result<> remove_all() const;
    /// Removes what remove_all() has left of directories in this one when it was killed, or could not go on.
    Result<> sweep() const;
    /// Removes the directory if it is empty; no error if not, or if it is not there.
    Result<> remove_empty() const;
    /// The same where it is no matter if that fails.
    void remove_if_empty() const { static_cast<void>(remove_empty()); }

    /// A descriptor of it, for locks and for those who read its names.
    Result<Fd> open_directory() const;

  private:
    /// Where every walk begins.
    struct Base {
        Fd fd; ///< the topmost directory on the bpffs; none: there is nothing
        dev_t device = 0;
    };
    PinDir(std::shared_ptr<const Base> base, std::vector<std::string> names, std::size_t root,
           std::string path)
        : base_(std::move(base)), names_(std::move(names)), root_(root), path_(std::move(path)) {}
    enum class Missing : bool { refuse, make };
    /// Walks down `depth` names; the descriptor is good for the *at calls only.
    Result<Fd> walk(std::size_t depth, Missing missing = Missing::refuse) const;
    Result<Fd> walk() const { return walk(names_.size()); }
    std::string path_at(std::size_t depth) const;
    Result<Fd> open_pin(const std::string& name) const;
    Result<> pin_fd(const std::string& name, int fd) const;
    Result<> replace_fd(const std::string& name, int fd) const;

    std::shared_ptr<const Base> base_;
    std::vector<std::string> names_; ///< from the base down
    std::size_t root_;               ///< how many of them lead to the root
    std::string path_;
};

} // namespace netctl::bpf
