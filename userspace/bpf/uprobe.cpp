// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/uprobe.hpp"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <optional>
#include <string>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

namespace {

/// What perf_event_open(2) calls `uprobe` or `kprobe`; 0: the kernel has none.
std::uint32_t perf_type(const char* name) {
    std::uint32_t number = 0;
    std::ifstream(fmt::format("/sys/bus/event_source/devices/{}/type", name)) >> number;
    return number;
}

/// Runs the program at what the attributes say. `pid` 0: whatever runs.
Result<Link> attach_event(const Program& program, perf_event_attr& attributes, std::uint64_t cookie,
                          std::uint32_t pid) {
    attributes.size = sizeof attributes;
    const Fd event(static_cast<int>(syscall(SYS_perf_event_open, &attributes,
                                            pid != 0 ? static_cast<pid_t>(pid) : -1,
                                            pid != 0 ? -1 : 0, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!event)
        return Error::system(errno, "cannot put a probe into a function",
                             errno == EPERM || errno == EACCES ? "that takes root, or CAP_SYS_ADMIN"
                                                               : "");
    LIBBPF_OPTS(bpf_link_create_opts, options);
    options.perf_event.bpf_cookie = cookie;
    Fd link(bpf_link_create(program.fd(), event.get(), BPF_PERF_EVENT, &options));
    if (!link)
        return Error::system(errno, "cannot run a program at a probe");
    return Link(std::move(link));
}

/// The function of this program that the trial's probe is at.
[[gnu::noinline]] int canary(int number) {
    return number + 1;
}

/// Where a function of this program lies in its file.
std::optional<std::uint64_t> offset_in_program(std::uintptr_t address) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long long begin = 0, end = 0, offset = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx %*s %llx", &begin, &end, &offset) == 3 &&
            address >= begin && address < end)
            return address - begin + offset;
    }
    return std::nullopt;
}

/// Calls the function where no system call but exit_group() is allowed. Does not return: the exit status is 0 if that
/// went well, 2 if it could not be tried.
[[noreturn]] void call_confined() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    sock_fprog filter{std::size(program), program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(2);
    int (*volatile called)(int) = canary; // at its own address, and not worked out before
    _exit(called(1) == 2 ? 0 : 1);
}

} // namespace

Result<Link> attach_uprobe(const Program& program, int file, std::uint64_t offset, ProbeAt at,
                           std::uint64_t cookie, std::uint32_t pid, std::uint64_t semaphore) {
    static const std::uint32_t type = perf_type("uprobe");
    if (type == 0)
        return Error::unsupported("this kernel has no uprobes, or /sys is not mounted");
    // The file that the descriptor is of, whatever its name is, or was.
    const std::string path = fmt::format("/proc/self/fd/{}", file);
    perf_event_attr attributes{};
    attributes.type = type;
    constexpr unsigned semaphore_shift = 32; // as /sys/bus/event_source/devices/uprobe/format says
    attributes.config = (at == ProbeAt::function_return ? 1 : 0) | semaphore << semaphore_shift;
    attributes.config1 = reinterpret_cast<std::uintptr_t>(path.c_str());
    attributes.config2 = offset;
    return attach_event(program, attributes, cookie, pid);
}

Result<Link> attach_kprobe(const Program& program, const std::string& function, ProbeAt at,
                           std::uint64_t cookie) {
    static const std::uint32_t type = perf_type("kprobe");
    if (type == 0)
        return Error::unsupported("this kernel has no kprobes, or /sys is not mounted");
    perf_event_attr attributes{};
    attributes.type = type;
    attributes.config = at == ProbeAt::function_return ? 1 : 0;
    attributes.config1 = reinterpret_cast<std::uintptr_t>(function.c_str());
    return attach_event(program, attributes, cookie, 0);
}

Result<> check_return_probes(const Program& program) {
    const auto offset = offset_in_program(reinterpret_cast<std::uintptr_t>(&canary));
    const Fd self(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    if (!offset || !self)
        return Error::failed("cannot find this program's own file, to try a probe there");
    const Link link =
        NETCTL_TRY(attach_uprobe(program, self.get(), *offset, ProbeAt::function_return));
    const pid_t child = fork();
    if (child < 0)
        return Error::system(errno, "cannot try a probe out");
    if (child == 0)
        call_confined();
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return {};
    if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
        return {}; // no seccomp here, so nobody is confined by it
    return Error::unsupported(
        "on this kernel probes at returns of functions kill processes that are confined by "
        "seccomp, "
        "as those in containers are",
        "Linux 6.14, and what distributions have made of 6.11 to 6.13 since, do not");
}

} // namespace netctl::bpf
