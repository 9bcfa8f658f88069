// SPDX-License-Identifier: GPL-2.0-only
#include "sys/file_id.hpp"

#include <cinttypes>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/fd.hpp"

namespace netctl::sys {

std::optional<FileId> file_id(const std::string& path) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};
    if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode))
        return std::nullopt;
    // The list of mappings has the kernel's own numbers.
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

} // namespace netctl::sys
