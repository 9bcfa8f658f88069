// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/bpffs.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <fmt/format.h>

namespace netctl::bpf {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view default_bpffs = "/sys/fs/bpf";

enum class Missing : bool { refuse, make };

/// Walks to a directory. Nothing if it is not there, or if it is in a bpffs, which `found` tells.
Result<Fd> walk_to(const std::string& path, Missing missing, bool& found) {
    Fd at(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!at)
        return Error::system(errno, "cannot open /");
    std::string so_far;
    found = false;
    for (const fs::path& part : fs::path(path).relative_path()) {
        const std::string& name = part.native();
        so_far += "/" + name;
        auto next = open_step(at.get(), name, so_far);
        if (!next && next.error().code == ENOENT) {
            if (missing == Missing::refuse)
                return Fd();
            if (mkdirat(at.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
                return Error::system(errno, fmt::format("cannot make {}", so_far));
            next = open_step(at.get(), name, so_far);
        }
        at = NETCTL_TRY(std::move(next));
        found = on_bpffs(at.get());
        if (found)
            return Fd();
    }
    return at;
}

} // namespace

Result<std::string> root_path(const std::string& given) {
    const fs::path path(given);
    if (given.empty())
        return Error::usage("the path of the root is empty", "give a directory with --root");
    bool plain = path.is_absolute();
    for (const fs::path& part : path)
        plain = plain && part != "." && part != "..";
    std::error_code ignored;
    fs::path straight = fs::absolute(path, ignored).lexically_normal();
    if (!straight.has_filename())
        straight = straight.parent_path();
    if (!plain)
        return Error::usage(
            fmt::format("the root {} is not an absolute path without '.' and '..'", given),
            fmt::format("if you mean {}, give that", straight.native()));
    if (straight == straight.root_path())
        return Error::usage("/ cannot be the root", "give a directory of a bpffs with --root");
    // As POSIX allows, a path that begins with two slashes is left alone by the library.
    return "/" + straight.relative_path().native();
}

Result<Fd> open_step(int parent, const std::string& name, const std::string& path) {
    Fd fd(openat(parent, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd)
        return fd;
    const int code = errno;
    struct stat info {};
    if (code == ENOTDIR && fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISLNK(info.st_mode))
        return Error::system(ELOOP,
                             fmt::format("{} is a symbolic link, and none is followed", path),
                             "give the path that it leads to");
    return Error::system(code, fmt::format("cannot open {}", path));
}

bool on_bpffs(int fd) {
    struct statfs info {};
    return fstatfs(fd, &info) == 0 && static_cast<unsigned long>(info.f_type) == BPF_FS_MAGIC;
}

Result<std::string> ensure_bpffs(const std::string& path) {
    bool found = false;
    NETCTL_TRY(walk_to(path, Missing::refuse, found));
    if (found)
        return std::string();
    const bool below_default =
        path == default_bpffs || path.starts_with(std::string(default_bpffs) + "/");
    const std::string target = below_default ? std::string(default_bpffs) : path;
    const Fd under =
        NETCTL_TRY(walk_to(target, below_default ? Missing::refuse : Missing::make, found));
    if (found)
        return std::string();
    if (!under)
        return Error::failed(fmt::format("there is no {} to mount a bpffs at", target));
    // Who mounts holds the directory that will be under the mount: another one looks again then.
    const Fd held(openat(under.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!held || flock(held.get(), LOCK_EX) != 0)
        return Error::system(errno, fmt::format("cannot lock {}", target));
    NETCTL_TRY(walk_to(target, Missing::refuse, found));
    if (found)
        return std::string();
    if (mount("bpf", fmt::format("/proc/self/fd/{}", under.get()).c_str(), "bpf",
              MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME, "mode=0700") != 0)
        return Error::system(errno,
                             fmt::format("no bpffs is mounted at {}, and mounting failed", target),
                             errno == EPERM ? "run as root" : "");
    return target;
}

} // namespace netctl::bpf
