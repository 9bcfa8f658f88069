// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/clients.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utility>

#include <fmt/format.h>

#include "features/redirect/connection.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;
using Events = std::array<epoll_event, 16>;

constexpr const char* what_is_needed =
    "the same request must be answered alike each time, on the same connection";

/// Tells of each connection by its index.
template <class Range, class GetFd> Result<Fd> watch(const Range& range, GetFd get_fd) {
    Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll)
        return Error::system(errno, "epoll_create1");
    std::uint64_t index = 0;
    for (const auto& one : range) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = index++;
        if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, get_fd(one), &event) != 0)
            return Error::system(errno, "epoll_ctl");
    }
    return epoll;
}

} // namespace

Clients::Clients(Fd epoll, std::vector<Connection> connections, std::string request,
                 std::size_t answer)
    : epoll_(std::move(epoll)),
      connections_(std::move(connections)),
      request_(std::move(request)),
      buffer_(answer, '\0'),
      answer_(answer),
      patience_(patience_ms) {}

Result<Clients> Clients::make(std::vector<Fd> connections, std::string request,
                              std::size_t answer) {
    std::vector<Connection> all(connections.size());
    for (std::size_t i = 0; i < all.size(); i++)
        all[i].fd = std::move(connections[i]);
    Fd epoll = NETCTL_TRY(watch(all, [](const Connection& one) { return one.fd.get(); }));
    return Clients(std::move(epoll), std::move(all), std::move(request), answer);
}

Result<> Clients::stay_on_tcp() const {
    for (const Connection& one : connections_)
        NETCTL_TRY(redirect::stay_on_tcp(one.fd.get()));
    return {};
}

std::size_t Clients::left() const {
    std::size_t most = 0;
    for (const Connection& one : connections_)
        most = std::max(most, one.asked);
    return budget_ - std::min(most, budget_);
}

Result<> Clients::ask(Connection& connection) {
    connection.asked++;
    return send_all(connection.fd.get(), request_);
}

Result<bool> Clients::receive(Connection& connection) {
    const ssize_t got =
        recv(connection.fd.get(), buffer_.data(), answer_ - connection.got, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got < 0)
        return Error::system(errno, "recv");
    closed_ = closed_ || got == 0;
    if (got == 0)
        return Error::failed(fmt::format("the server closed a connection after {} answers of {} "
                                         "bytes, and {} bytes of the next one",
                                         exchanges_, answer_, connection.got),
                             what_is_needed);
    connection.got += static_cast<std::size_t>(got);
    if (connection.got < answer_)
        return false;
    connection.got = 0;
    exchanges_++;
    return true;
}

Result<double> Clients::run(std::chrono::nanoseconds time) {
    const std::size_t before = exchanges_;
    const auto begin = Clock::now();
    std::size_t open = 0;
    for (Connection& one : connections_)
        if (one.asked < budget_) {
            NETCTL_TRY(ask(one));
            open++;
        }
    Events events;
    while (open > 0) {
        const int ready = epoll_wait(epoll_.get(), events.data(), events.size(),
                                     static_cast<int>(patience_.count()));
        if (ready < 0 && errno != EINTR)
            return Error::system(errno, "epoll_wait");
        if (ready == 0)
            return Error::failed(
                fmt::format("{} requests were answered with {} bytes each, and then none within "
                            "{} s",
                            exchanges_, answer_, patience_.count() / 1000),
                what_is_needed);
        const bool over = Clock::now() - begin >= time;
        for (int i = 0; i < std::max(ready, 0); i++) {
            Connection& one = connections_[events[static_cast<std::size_t>(i)].data.u64];
            if (!NETCTL_TRY(receive(one)))
                continue;
            if (over || one.asked >= budget_)
                open--;
            else
                NETCTL_TRY(ask(one));
        }
    }
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count() /
           static_cast<double>(exchanges_ - before);
}

bool serve(const std::vector<Fd>& connections, std::size_t request, const std::string& answer) {
    const auto epoll = watch(connections, [](const Fd& fd) { return fd.get(); });
    if (!epoll)
        return false;
    std::vector<std::size_t> got(connections.size());
    std::string buffer(request, '\0');
    Events events;
    for (std::size_t open = connections.size(); open > 0;) {
        const int ready = epoll_wait(epoll->get(), events.data(), events.size(), -1);
        if (ready < 0 && errno != EINTR)
            return false;
        for (int i = 0; i < std::max(ready, 0); i++) {
            const std::size_t index = events[static_cast<std::size_t>(i)].data.u64;
            const int fd = connections[index].get();
            const ssize_t more = recv(fd, buffer.data(), request - got[index], 0);
            if (more < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (more < 0 || (more == 0 && got[index] != 0))
                return false;
            if (more == 0) {
                epoll_ctl(epoll->get(), EPOLL_CTL_DEL, fd, nullptr);
                open--;
                continue;
            }
            got[index] += static_cast<std::size_t>(more);
            if (got[index] < request)
                continue;
            got[index] = 0;
            if (!send_all(fd, answer))
                return false;
        }
    }
    return true;
}

} // namespace netctl::redirect
