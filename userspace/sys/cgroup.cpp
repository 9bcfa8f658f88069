// SPDX-License-Identifier: GPL-2.0-only
#include "sys/cgroup.hpp"

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <vector>

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

} // namespace

Result<std::string> cgroup_mount() {
    std::ifstream mounts("/proc/self/mountinfo");
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

std::optional<std::string> cgroup_name(std::uint64_t id) {
    const Result<std::string> mount = cgroup_mount();
    if (!mount)
        return std::nullopt;
    if (inode_of(*mount) == id)
        return "/";
    std::error_code failure;
    const auto skip = std::filesystem::directory_options::skip_permission_denied;
    auto entry = std::filesystem::recursive_directory_iterator(*mount, skip, failure);
    const auto end = std::filesystem::recursive_directory_iterator();
    for (; !failure && entry != end; entry.increment(failure)) {
        std::error_code ignored;
        if (entry->is_directory(ignored) && inode_of(entry->path().string()) == id)
            return entry->path().string().substr(mount->size());
    }
    return std::nullopt;
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
