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

/// Gives a whole file that has no name yet its own, in the place of an older one. The name that it has in between is
/// always the same, so that one that a killed writer has left is gone with the next. Returns 0 or a positive errno.
int name_it(int file, int directory, const std::string& name) {
    const std::string beside = name + ".netctl-new";
    const std::string descriptor = fmt::format("/proc/self/fd/{}", file);
    for (int tries = 0; tries < 100; tries++) {
        if (linkat(AT_FDCWD, descriptor.c_str(), directory, beside.c_str(), AT_SYMLINK_FOLLOW) !=
            0) {
            if (errno != EEXIST)
                return errno;
            if (unlinkat(directory, beside.c_str(), 0) != 0 && errno != ENOENT)
                return errno;
            continue;
        }
        if (renameat(directory, beside.c_str(), directory, name.c_str()) == 0)
            return 0;
        if (errno != ENOENT) { // else another writer has put it there, or taken it away
            const int error = errno;
            unlinkat(directory, beside.c_str(), 0);
            return error;
        }
    }
    return EBUSY;
}

/// The same where a file cannot be without a name.
int write_beside(int directory, const std::string& name, std::string_view text, mode_t mode) {
    std::uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return errno;
    const std::string beside = fmt::format("{}.{:08x}.tmp", name, random);
    const Fd file(openat(directory, beside.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file)
        return errno;
    int error = write_whole(file.get(), text, mode);
    if (error == 0 && renameat(directory, beside.c_str(), directory, name.c_str()) != 0)
        error = errno;
    if (error != 0)
        unlinkat(directory, beside.c_str(), 0);
    return error;
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
    const Fd file(openat(directory.get(), ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600));
    int error = 0;
    if (file) {
        error = write_whole(file.get(), text, mode);
        if (error == 0)
            error = name_it(file.get(), directory.get(), name);
    } else if (errno == EOPNOTSUPP || errno == EISDIR) {
        error = write_beside(directory.get(), name, text, mode);
    } else {
        return Error::system(errno, fmt::format("cannot make a file in {}", folder));
    }
    return error == 0 ? Result<>() : Error::system(error, fmt::format("cannot write {}", path));
}

} // namespace netctl::sys
