// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/canary.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace netctl::policy {

std::uint32_t canary_address() {
    std::uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = static_cast<std::uint32_t>(getpid());
    return htonl(0x7f800000U | (random & 0x007fffffU));
}

Result<TemporaryCgroup> TemporaryCgroup::below(const std::string& directory) {
    std::string path = fmt::format("{}/netctl-canary-{}", directory, getpid());
    if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
        return Error::system(errno, fmt::format("cannot make the cgroup {}", path));
    return TemporaryCgroup(std::move(path));
}

TemporaryCgroup::TemporaryCgroup(TemporaryCgroup&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
}

TemporaryCgroup::~TemporaryCgroup() {
    if (!path_.empty())
        rmdir(path_.c_str());
}

namespace {

/// In the child: errno of connect(), or 255 if it did not come so far.
int connect_to(std::uint32_t address, const std::string& cgroup) {
    constexpr int not_so_far = 255;
    if (!cgroup.empty()) {
        const int procs = open((cgroup + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
        if (procs < 0 || write(procs, "0", 1) != 1)
            return not_so_far;
    }
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return not_so_far;
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(1);
    to.sin_addr.s_addr = address;
    return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ? 0 : errno;
}

} // namespace

Result<int> connect_from_child(std::uint32_t address, const std::string& cgroup) {
    const pid_t child = fork();
    if (child < 0)
        return Error::system(errno, "cannot make a process");
    if (child == 0)
        _exit(connect_to(address, cgroup));
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return Error::system(errno, "cannot wait for a process");
    if (!WIFEXITED(status) || WEXITSTATUS(status) == 255)
        return Error::failed(fmt::format("cannot move a process into {}", cgroup));
    return WEXITSTATUS(status);
}

} // namespace netctl::policy
