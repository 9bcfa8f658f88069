// SPDX-License-Identifier: GPL-2.0-only
#include "sys/netns.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <fmt/format.h>

namespace netctl::sys {

namespace {
constexpr const char* own_namespace = "/proc/thread-self/ns/net";
}

Result<NetnsGuard> NetnsGuard::enter(const std::string& name) {
    if (name.empty())
        return NetnsGuard(Fd());
    const std::string path = name.find('/') == std::string::npos ? "/run/netns/" + name : name;
    const Fd target(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!target)
        return Error::system(errno, fmt::format("cannot open network namespace '{}'", name),
                             "`ip netns` lists the names; a path such as /proc/PID/ns/net works "
                             "too");
    Fd previous(::open(own_namespace, O_RDONLY | O_CLOEXEC));
    if (!previous)
        return Error::system(errno, fmt::format("cannot open {}", own_namespace));
    if (setns(target.get(), CLONE_NEWNET) != 0) {
        const int code = errno;
        return Error::system(code, fmt::format("cannot enter network namespace '{}'", name),
                             code == EINVAL ? "the path is no network namespace"
                                            : "that takes CAP_SYS_ADMIN: run as root");
    }
    return NetnsGuard(std::move(previous));
}

NetnsGuard::~NetnsGuard() {
    // Cannot fail for a descriptor that we came from; nothing sensible could be done if it did.
    if (previous_)
        setns(previous_.get(), CLONE_NEWNET);
}

Result<std::uint64_t> current_netns_inode() {
    struct stat info {};
    if (stat(own_namespace, &info) != 0)
        return Error::system(errno, fmt::format("cannot read {}", own_namespace));
    return static_cast<std::uint64_t>(info.st_ino);
}

} // namespace netctl::sys
