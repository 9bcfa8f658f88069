// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/program.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fd.hpp"
#include "sys/clock.hpp"

namespace netctl::fleet {

namespace {

constexpr std::size_t most_output = std::size_t{1} << 20;

struct Pipe {
    Fd reading, writing;
};

Result<Pipe> make_pipe() {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0)
        return Error::system(errno, "cannot make a pipe");
    return Pipe{Fd(ends[0]), Fd(ends[1])};
}

} // namespace

Result<ProgramEnd> run_program(const std::vector<std::string>& argv, std::chrono::seconds limit) {
    Pipe out = NETCTL_TRY(make_pipe()), err = NETCTL_TRY(make_pipe());
    std::vector<char*> words;
    for (const std::string& word : argv)
        words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out.writing.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err.writing.get(), 2);
    // A group of its own: what ends us by the terminal must not end a change half way.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    pid_t child = 0;
    const int code = posix_spawnp(&child, words[0], &actions, &attributes, words.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0)
        return Error::system(code, Text::format("cannot run {}", argv.front()));
    out.writing.reset();
    err.writing.reset();

    ProgramEnd end;
    const std::uint64_t until =
        sys::now_ms() + static_cast<std::uint64_t>(std::chrono::milliseconds(limit).count());
    std::array<pollfd, 2> streams{{{out.reading.get(), POLLIN, 0}, {err.reading.get(), POLLIN, 0}}};
    bool killed = false;
    while (streams[0].fd >= 0 || streams[1].fd >= 0) {
        const std::uint64_t now = sys::now_ms();
        if (now >= until) {
            kill(-child, SIGKILL);
            killed = true;
            break;
        }
        if (poll(streams.data(), streams.size(), static_cast<int>(until - now)) <= 0)
            continue;
        for (std::size_t i = 0; i < streams.size(); i++) {
            if (streams[i].fd < 0 || streams[i].revents == 0)
                continue;
            std::array<char, 1 << 14> part{};
            const ssize_t got = read(streams[i].fd, part.data(), part.size());
            std::string& text = i == 0 ? end.output : end.errors;
            if (got > 0 && text.size() < most_output)
                text.append(part.data(), static_cast<std::size_t>(got));
            else if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
                streams[i].fd = -1;
        }
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!killed && WIFEXITED(status))
        end.status = WEXITSTATUS(status);
    return end;
}

} // namespace netctl::fleet
