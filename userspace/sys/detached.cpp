// SPDX-License-Identifier: GPL-2.0-only
#include "sys/detached.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

namespace netctl::sys {

namespace {

std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> all;
    for (std::string& word : words)
        all.push_back(word.data());
    all.push_back(nullptr);
    return all;
}

/// Whether we are where systemd's units are: in the namespaces of process 1.
bool beside_systemd() {
    struct stat found {};
    if (stat("/run/systemd/system", &found) != 0)
        return false;
    for (const char* kind : {"net", "mnt"}) {
        struct stat ours {
        }, theirs{};
        const std::string name = std::string("/ns/") + kind;
        if (stat(("/proc/self" + name).c_str(), &ours) != 0 ||
            stat(("/proc/1" + name).c_str(), &theirs) != 0 || ours.st_ino != theirs.st_ino)
            return false;
    }
    return true;
}

bool started_by_systemd(const std::string& unit, const std::string& program,
                        const std::vector<std::string>& arguments) {
    std::vector<std::string> words{"systemd-run", "--quiet", "--collect", "--unit=" + unit,
                                   program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv = pointers(words);
    pid_t child = 0;
    if (posix_spawnp(&child, words[0].c_str(), nullptr, nullptr, argv.data(), environ) != 0)
        return false;
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// In the child: nothing of the starter's is left but its namespaces. Only calls that are safe behind fork().
[[noreturn]] void become(const char* program, char* const* argv) {
    setsid();
    if (fork() != 0)
        _exit(0);
    (void)signal(SIGHUP, SIG_IGN);
    (void)chdir("/");
    const int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    close_range(3, ~0U, 0);
    execv(program, argv);
    _exit(127);
}

} // namespace

Result<> start_detached(const std::string& unit, const std::vector<std::string>& arguments) {
    std::error_code failure;
    const std::string program = std::filesystem::read_symlink("/proc/self/exe", failure).string();
    if (failure)
        return Error::system(failure.value(), "cannot find this program");
    if (beside_systemd() && started_by_systemd(unit, program, arguments))
        return {};
    std::vector<std::string> words{program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const std::vector<char*> argv = pointers(words);
    const pid_t child = fork();
    if (child < 0)
        return Error::system(errno, "cannot start a process");
    if (child == 0)
        become(program.c_str(), argv.data());
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return Error::system(errno, "cannot wait for a process");
    return {};
}

} // namespace netctl::sys
