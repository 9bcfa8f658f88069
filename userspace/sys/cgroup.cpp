// SPDX-License-Identifier: GPL-2.0-only
#include "sys/cgroup.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <vector>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

constexpr auto cgroup2_magic = 0x63677270;

bool is_cgroup(const std::string& path) {
    struct statfs status {};
    return statfs(path.c_str(), &status) == 0 && status.f_type == cgroup2_magic;
}

std::uint64_t inode_of(const std::string& path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

/// The directory with this id, nothing if there is none: from the kernel, which makes a file handle of the id (kernfs;
/// Linux 5.5). An error without CAP_DAC_READ_SEARCH, and for cgroups out of sight of this namespace.
Result<std::optional<std::string>> path_by_handle(const std::string& mount, std::uint64_t id) {
    constexpr int fileid_kernfs = 0xfe;
    const Fd root(open(mount.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    alignas(file_handle) std::array<char, sizeof(file_handle) + sizeof id> room{};
    auto* const handle = reinterpret_cast<file_handle*>(room.data());
    handle->handle_bytes = sizeof id;
    handle->handle_type = fileid_kernfs;
    std::memcpy(handle->f_handle, &id, sizeof id);
    const Fd found(open_by_handle_at(root.get(), handle, O_PATH | O_CLOEXEC));
    if (!found && errno == ESTALE)
        return std::optional<std::string>();
    if (!found)
        return Error::system(errno, fmt::format("cannot open the cgroup {}", id));
    std::error_code failure;
    std::string path =
        std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", found.get()), failure);
    if (failure || !path.starts_with(mount) || inode_of(path) != id)
        return Error::failed(fmt::format("the cgroup {} is out of sight", id));
    return std::optional(std::move(path));
}

/// The same by looking at them all. One that vanishes while it is looked into is none; one that may not be looked into
/// has none that is ours to know.
Result<std::optional<std::string>> path_by_walk(const std::string& directory, std::uint64_t id) {
    if (inode_of(directory) == id)
        return std::optional(directory);
    std::error_code failure;
    auto entry = std::filesystem::directory_iterator(directory, failure);
    for (const auto end = std::filesystem::directory_iterator(); !failure && entry != end;
         entry.increment(failure)) {
        std::error_code ignored;
        if (!entry->is_symlink(ignored) && entry->is_directory(ignored))
            if (auto found = NETCTL_TRY(path_by_walk(entry->path().string(), id)))
                return found;
    }
    if (failure && failure != std::errc::no_such_file_or_directory &&
        failure != std::errc::permission_denied)
        return Error::system(failure.value(), "cannot read " + directory);
    return std::optional<std::string>();
}

} // namespace

Result<std::string> cgroup_mount() {
    std::ifstream mounts("/proc/self/mountinfo");
    if (!mounts)
        return Error::system(errno, "cannot read /proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream words(line);
        std::string id, parent, device, root, point, word, type;
        words >> id >> parent >> device >> root >> point;
        while (words >> word && word != "-") {
        }
        words >> type;
        if (type == "cgroup2")
            return point;
    }
    if (mounts.bad())
        return Error::system(errno, "cannot read /proc/self/mountinfo");
    return Error::unsupported("cgroup v2 is not mounted",
                              "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified");
}

Result<Cgroup> find_cgroup(const std::string& name) {
    std::string mount = NETCTL_TRY(cgroup_mount());
    std::string path = mount;
    if (name.starts_with(mount) && (name.size() == mount.size() || name[mount.size()] == '/'))
        path = name;
    else if (!name.empty() && name != "/")
        path += (name.front() == '/' ? "" : "/") + name;
    while (path.size() > 1 && path.back() == '/')
        path.pop_back();
    std::error_code failure;
    const std::filesystem::path whole = std::filesystem::canonical(path, failure);
    if (failure)
        return Error::failed("there is no cgroup '" + name + "'",
                             "cgroups are the directories below " + mount);
    path = whole.string();
    if (!is_cgroup(path) || !std::filesystem::is_directory(path, failure))
        return Error::failed("'" + name + "' is no directory of cgroup v2",
                             "cgroups are the directories below " + mount);
    const std::uint64_t id = inode_of(path);
    std::string below = path == mount ? "/" : path.substr(mount.size());
    return Cgroup{std::move(path), std::move(below), id};
}

Result<std::optional<std::string>> look_for_cgroup(std::uint64_t id) {
    const std::string mount = NETCTL_TRY(cgroup_mount());
    auto found = path_by_handle(mount, id);
    if (!found.has_value())
        found = path_by_walk(mount, id);
    const auto path = NETCTL_TRY(std::move(found));
    if (!path)
        return std::optional<std::string>();
    return std::optional(*path == mount ? "/" : path->substr(mount.size()));
}

std::optional<std::string> cgroup_name(std::uint64_t id) {
    return look_for_cgroup(id).value_or(std::nullopt);
}

std::optional<std::string> own_cgroup() {
    return cgroup_of("/proc/self");
}

std::optional<std::string> cgroup_of(const std::string& process_directory) {
    std::ifstream file(process_directory + "/cgroup");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("0::"))
            return line.substr(3);
    return std::nullopt;
}

std::uint32_t cgroup_level(const std::string& name) {
    return name == "/" ? 0 : static_cast<std::uint32_t>(std::count(name.begin(), name.end(), '/'));
}

Result<Fd> open_cgroup(const Cgroup& cgroup) {
    Fd fd(open(cgroup.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return Error::system(errno, "cannot open the cgroup " + cgroup.path);
    return fd;
}

} // namespace netctl::sys
