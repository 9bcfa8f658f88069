// SPDX-License-Identifier: GPL-2.0-only
#include "sys/replace_file.hpp"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/fd.hpp"

namespace netctl::sys {

namespace {

/// Returns 0 or a positive errno.
int write_whole(int file, std::string_view text, mode_t mode) {
    while (!text.empty()) {
        const ssize_t written = write(file, text.data(), text.size());
        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0)
            text.remove_prefix(static_cast<std::size_t>(written));
    }
    // Whatever the umask says: others have to read it.
    return fchmod(file, mode) != 0 || fsync(file) != 0 ? errno : 0;
}

} // namespace

Result<> replace_file(const std::string& path, std::string_view text, mode_t mode) {
    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "."
                               : slash == 0               ? "/"
                                                          : path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    if (name.empty() || name == "." || name == "..")
        return Error::usage(fmt::format("{} names no file", path));
    const Fd directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory)
        return Error::system(errno, fmt::format("cannot open the directory {}", folder));
    std::uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return Error::system(errno, "cannot get a random number");
    const std::string beside = fmt::format("{}.{:08x}.tmp", name, random);
    const Fd file(openat(directory.get(), beside.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file)
        return Error::system(errno, fmt::format("cannot make a file in {}", folder));
    int error = write_whole(file.get(), text, mode);
    if (error == 0 && renameat(directory.get(), beside.c_str(), directory.get(), name.c_str()) != 0)
        error = errno;
    if (error == 0)
        return {};
    unlinkat(directory.get(), beside.c_str(), 0);
    return Error::system(error, fmt::format("cannot write {}", path));
}

} // namespace netctl::sys
