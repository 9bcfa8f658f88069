// SPDX-License-Identifier: GPL-2.0-only
#include "host/probe.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <optional>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "core/fd.hpp"

namespace netctl::host {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using TimePoint = steady_clock::time_point;

constexpr milliseconds most_of_a_try{3000}, pause_between{200};

/// HOST:PORT, with brackets around what has colons itself.
Result<std::pair<std::string, std::string>> parse_place(const std::string& text,
                                                        const char* otherwise) {
    std::string host = text, port = otherwise;
    const std::size_t bracket = text.starts_with('[') ? text.find(']') : 0;
    const std::size_t colon = bracket == text.npos ? text.npos : text.find(':', bracket);
    if (colon != text.npos) {
        host = text.substr(0, colon);
        port = text.substr(colon + 1);
    }
    if (host.size() > 2 && host.starts_with('[') && host.ends_with(']'))
        host = host.substr(1, host.size() - 2);
    std::uint16_t number = 0;
    const auto [end, status] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (host.empty() || status != std::errc{} || end != port.data() + port.size() || number == 0)
        return Error::usage(fmt::format("'{}' is no HOST:PORT", text));
    return std::pair(host, port);
}

int left_ms(TimePoint end) {
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now());
    return static_cast<int>(std::max<milliseconds::rep>(left.count(), 0));
}

Result<> wait_for(int fd, short events, TimePoint end, const std::string& what) {
    pollfd entry{fd, events, 0};
    int ready = 0;
    do
        ready = poll(&entry, 1, left_ms(end));
    while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return Error::system(errno, what);
    return ready == 0 ? Result<>(Error::system(ETIMEDOUT, what)) : Result<>();
}

Result<Fd> connect_to(const Probe& probe, TimePoint end) {
    const std::string what = fmt::format("cannot connect to {} port {}", probe.host, probe.port);
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (const int status = getaddrinfo(probe.host.c_str(), probe.port.c_str(), &hints, &found))
        return Error::failed(fmt::format("{}: {}", what, gai_strerror(status)));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
    Error last = Error::failed(what);
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
        Fd fd(socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!fd)
            return Error::system(errno, what);
        if (connect(fd.get(), one->ai_addr, one->ai_addrlen) == 0)
            return fd;
        if (errno != EINPROGRESS) {
            last = Error::system(errno, what);
            continue;
        }
        auto waited = wait_for(fd.get(), POLLOUT, end, what);
        if (!waited)
            return std::move(waited).error();
        int code = 0;
        socklen_t size = sizeof code;
        getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &code, &size);
        if (code == 0)
            return fd;
        last = Error::system(code, what);
    }
    return last;
}

/// The first line of what is answered, `HTTP/1.1 200 OK`.
Result<> ask_http(const Probe& probe, TimePoint end) {
    const Fd fd = NETCTL_TRY(connect_to(probe, end));
    const std::string what = fmt::format("no answer from {} port {}", probe.host, probe.port);
    const std::string request = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: netctl\r\n"
                                            "Connection: close\r\n\r\n",
                                            probe.path, probe.host);
    if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size()))
        return Error::system(errno, what);
    std::string line;
    while (line.find('\n') == line.npos && line.size() < 1024) {
        NETCTL_TRY(wait_for(fd.get(), POLLIN, end, what));
        char part[256];
        const ssize_t got = recv(fd.get(), part, sizeof part, 0);
        if (got < 0)
            return Error::system(errno, what);
        if (got == 0)
            return Error::failed(what + ": the connection ended");
        line.append(part, static_cast<std::size_t>(got));
    }
    line.resize(std::min(line.find_first_of("\r\n"), line.size()));
    const std::size_t blank = line.find(' ');
    const std::string status = blank == line.npos ? "" : line.substr(blank + 1, 3);
    if (line.starts_with("HTTP/") && status.size() == 3 && (status[0] == '2' || status[0] == '3'))
        return {};
    return Error::failed(Text::format("{} port {} answers '{}'", probe.host, probe.port, line));
}

Result<> ask_command(const Probe& probe, TimePoint end) {
    std::string shell = "sh", option = "-c", command = probe.command;
    char* argv[]{shell.data(), option.data(), command.data(), nullptr};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, 2, 1); // ours is for results
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    pid_t child = 0;
    const int code = posix_spawn(&child, "/bin/sh", &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (code != 0)
        return Error::system(code, "cannot run the probe's command");
    int status = 0;
    for (;;) {
        const pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            break;
        if (steady_clock::now() >= end) {
            kill(-child, SIGKILL);
            waitpid(child, &status, 0);
            return Error::failed("the probe's command did not end in time");
        }
        std::this_thread::sleep_for(milliseconds(10));
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return {};
    return Error::failed(
        WIFEXITED(status)
            ? fmt::format("the probe's command ended with {}", WEXITSTATUS(status))
            : fmt::format("the probe's command was ended by signal {}", WTERMSIG(status)));
}

Result<> try_once(const Probe& probe, TimePoint end) {
    switch (probe.kind) {
    case Probe::Kind::http: return ask_http(probe, end);
    case Probe::Kind::command: return ask_command(probe, end);
    case Probe::Kind::tcp: break;
    }
    NETCTL_TRY(connect_to(probe, end));
    return {};
}

} // namespace

Result<Probe> parse_probe(const std::string& text) {
    const std::size_t blank = text.find(' ');
    const std::string kind = text.substr(0, blank);
    const std::size_t begin = blank == text.npos ? blank : text.find_first_not_of(' ', blank);
    const std::string rest = begin == text.npos ? "" : text.substr(begin);
    Probe probe;
    probe.text = text;
    if (kind == "command" && !rest.empty()) {
        probe.kind = Probe::Kind::command;
        probe.command = rest;
        return probe;
    }
    if (kind == "tcp" && !rest.empty()) {
        probe.kind = Probe::Kind::tcp;
        std::tie(probe.host, probe.port) = NETCTL_TRY(parse_place(rest, ""));
        return probe;
    }
    constexpr std::string_view scheme = "http://";
    if (kind == "http" && rest.starts_with(scheme)) {
        const std::size_t slash = std::min(rest.find('/', scheme.size()), rest.size());
        probe.kind = Probe::Kind::http;
        std::tie(probe.host, probe.port) =
            NETCTL_TRY(parse_place(rest.substr(scheme.size(), slash - scheme.size()), "80"));
        probe.path = slash == rest.size() ? "/" : rest.substr(slash);
        return probe;
    }
    return Error::usage(Text::format("'{}' is no probe", text),
                        "`tcp HOST:PORT`, `http http://HOST/PATH` or `command COMMAND`; for https: "
                        "`command curl -fsS URL`");
}

Result<> probe_until(const Probe& probe, TimePoint end) {
    std::optional<Error> last;
    for (;;) {
        auto tried = try_once(probe, std::min(end, steady_clock::now() + most_of_a_try));
        if (tried)
            return tried;
        // One that was cut short says less than the one before.
        if (!last || steady_clock::now() < end)
            last = std::move(tried).error();
        if (steady_clock::now() + pause_between >= end)
            return *last;
        std::this_thread::sleep_for(pause_between);
    }
}

} // namespace netctl::host
