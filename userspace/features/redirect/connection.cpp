// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/connection.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "sys/netns.hpp"

namespace netctl::redirect {

namespace {

Result<> wait_for(int fd, short events, const char* what) {
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, patience_ms);
    if (ready < 0 && errno != EINTR)
        return Error::system(errno, what);
    if (ready == 0)
        return Error::failed(fmt::format("{}: nothing for {} ms", what, patience_ms));
    return {};
}

std::uint16_t port_of(const sockaddr_storage& address) {
    if (address.ss_family == AF_INET6)
        return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

} // namespace

Result<LocalConnection> LocalConnection::open(bool ipv6) {
    if (!ipv6)
        return open_to(htonl(INADDR_LOOPBACK), {});
    sockaddr_storage address{};
    address.ss_family = AF_INET6;
    reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_loopback;
    return open(address, {});
}

Result<LocalConnection> LocalConnection::open_to(std::uint32_t address, const std::string& netns) {
    sockaddr_storage server{};
    server.ss_family = AF_INET;
    reinterpret_cast<sockaddr_in&>(server).sin_addr.s_addr = address;
    return open(server, netns);
}

Result<LocalConnection> LocalConnection::open(sockaddr_storage address, const std::string& netns) {
    const int family = address.ss_family;
    socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    auto* generic = reinterpret_cast<sockaddr*>(&address);

    Fd listener;
    {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(netns));
        listener = Fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    }
    LocalConnection made;
    made.client = Fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!listener || !made.client)
        return Error::system(errno, "cannot make a TCP socket");
    if (bind(listener.get(), generic, size) != 0 || listen(listener.get(), 1) != 0 ||
        getsockname(listener.get(), generic, &size) != 0)
        return Error::system(errno, "cannot listen", "is lo up in this namespace?");
    made.server_port = port_of(address);
    if (connect(made.client.get(), generic, size) != 0)
        return Error::system(errno, "cannot connect", "is lo up in this namespace?");
    if (getsockname(made.client.get(), generic, &size) != 0)
        return Error::system(errno, "getsockname");
    made.client_port = port_of(address);
    made.server = Fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!made.server || fcntl(made.client.get(), F_SETFL, O_NONBLOCK) != 0)
        return Error::system(errno, "cannot accept");
    const int on = 1;
    for (const int fd : {made.client.get(), made.server.get()})
        if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
            return Error::system(errno, "TCP_NODELAY");
    return made;
}

Result<> send_all(int fd, const std::string& bytes, int flags) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t sent =
            send(fd, bytes.data() + done, bytes.size() - done, flags | MSG_NOSIGNAL);
        if (sent >= 0)
            done += static_cast<std::size_t>(sent);
        else if (errno == EAGAIN)
            NETCTL_TRY(wait_for(fd, POLLOUT, "send"));
        else if (errno != EINTR)
            return Error::system(errno, "send");
    }
    return {};
}

Result<> stay_on_tcp(int fd) {
    const int on = 1; // it is for sends with MSG_ZEROCOPY only
    if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) != 0)
        return Error::system(errno, "SO_ZEROCOPY");
    return {};
}

Result<std::string> receive(int fd, std::size_t size) {
    std::string bytes(size, '\0');
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = recv(fd, bytes.data() + done, size - done, 0);
        if (got == 0)
            break;
        if (got > 0)
            done += static_cast<std::size_t>(got);
        else if (errno == EAGAIN)
            NETCTL_TRY(wait_for(fd, POLLIN, "recv"));
        else if (errno != EINTR)
            return Error::system(errno, "recv");
    }
    bytes.resize(done);
    return bytes;
}

Result<std::string> run_in_cgroup(const std::function<void(const sys::Cgroup&, int)>& work,
                                  unsigned timeout_ms, const std::string& parent) {
    const std::string above = NETCTL_TRY(sys::find_cgroup(parent)).path;
    const std::string path = fmt::format("{}/netctl-{}", above, getpid());
    if (mkdir(path.c_str(), 0755) != 0)
        return Error::system(errno, fmt::format("cannot make the cgroup {}", path));
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        const int code = errno;
        rmdir(path.c_str());
        return Error::system(code, "pipe");
    }
    const Fd read_end(ends[0]);
    Fd write_end(ends[1]);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); // it has our locks
        setsid();
        {
            std::ofstream procs(path + "/cgroup.procs");
            procs << getpid() << std::flush;
        }
        const auto cgroup = sys::find_cgroup(path);
        if (cgroup)
            work(*cgroup, write_end.get());
        _exit(0);
    }
    const int code = errno;
    write_end.reset();
    std::string output;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    bool timed_out = false;
    while (child > 0) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            end - std::chrono::steady_clock::now());
        pollfd entry{read_end.get(), POLLIN, 0};
        const int ready = poll(&entry, 1, static_cast<int>(std::max<long>(left.count(), 0)));
        if (ready < 0 && errno == EINTR)
            continue;
        timed_out = ready == 0;
        std::array<char, 4096> buffer;
        const ssize_t got = ready > 0 ? ::read(read_end.get(), buffer.data(), buffer.size()) : 0;
        if (got <= 0)
            break;
        output.append(buffer.data(), static_cast<std::size_t>(got));
    }
    if (child > 0) {
        if (timed_out)
            kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }
    // The kernel lets go of a process that was waited for a moment later.
    for (int i = 0; rmdir(path.c_str()) != 0 && errno == EBUSY && i < 500; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (child < 0)
        return Error::system(code, "fork");
    if (timed_out)
        output += fmt::format("timeout\t0\tnothing for {} ms\n", timeout_ms);
    return output;
}

} // namespace netctl::redirect
