// SPDX-License-Identifier: GPL-2.0-only
#include "sys/file_id.hpp"

#include <cinttypes>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <sys/mman.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "core/fd.hpp"

namespace netctl::sys {

namespace {

/// What /proc tells of an open file: the inode's number, and the device of the mount it was opened
/// through.
std::optional<FileId> by_mount(const Fd& fd) {
    std::optional<std::uint64_t> inode, mount;
    std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd.get()));
    for (std::string line; std::getline(info, line);) {
        std::uint64_t number = 0;
        if (std::sscanf(line.c_str(), "ino: %" SCNu64, &number) == 1)
            inode = number;
        else if (std::sscanf(line.c_str(), "mnt_id: %" SCNu64, &number) == 1)
            mount = number;
    }
    if (!inode || !mount)
        return std::nullopt;
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        std::uint64_t id = 0;
        unsigned major = 0, minor = 0;
        if (std::sscanf(line.c_str(), "%" SCNu64 " %*u %u:%u ", &id, &major, &minor) == 3 &&
            id == *mount)
            return FileId{major << 20 | minor, *inode};
    }
    return std::nullopt;
}

/// What the list of mappings tells. On overlayfs, kernels before 6.8 tell of the file below there.
std::optional<FileId> by_mapping(const Fd& fd) {
    constexpr std::size_t page = 4096;
    void* mapped = mmap(nullptr, page, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (mapped == MAP_FAILED)
        return std::nullopt;
    std::optional<FileId> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; !found && std::getline(maps, line);) {
        std::uintptr_t start = 0;
        unsigned major = 0, minor = 0;
        std::uint64_t inode = 0;
        if (std::sscanf(line.c_str(), "%" SCNxPTR "-%*x %*s %*x %x:%x %" SCNu64, &start, &major,
                        &minor, &inode) == 4 &&
            start == reinterpret_cast<std::uintptr_t>(mapped))
            found = FileId{major << 20 | minor, inode};
    }
    munmap(mapped, page);
    return found;
}

} // namespace

std::optional<FileId> file_id(const std::string& path) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};
    if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode))
        return std::nullopt;
    const auto id = by_mount(fd);
    return id ? id : by_mapping(fd); // another namespace's mount, by a path below /proc/PID/root
}

} // namespace netctl::sys
