// SPDX-License-Identifier: GPL-2.0-only
#include "sys/page_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

using std::chrono::seconds;

constexpr std::size_t max_clients = 16;
constexpr std::size_t max_request = 8192;
constexpr seconds time_to_ask(10), time_to_take(30), time_to_close(2);

constexpr const char* head_end = "\r\n\r\n";

union SocketAddress {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
};

socklen_t fill(SocketAddress& to, const Endpoint& from) {
    to = {};
    if (from.address.family == Family::ipv4) {
        to.v4.sin_family = AF_INET;
        to.v4.sin_port = htons(from.port);
        std::memcpy(&to.v4.sin_addr, from.address.bytes.data(), 4);
        return sizeof to.v4;
    }
    to.v6.sin6_family = AF_INET6;
    to.v6.sin6_port = htons(from.port);
    std::memcpy(&to.v6.sin6_addr, from.address.bytes.data(), 16);
    return sizeof to.v6;
}

std::string response_of(const char* status, const std::string& type, const std::string& more,
                        const std::string& body, bool with_body) {
    return fmt::format("HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n"
                       "Connection: close\r\n{}\r\n{}",
                       status, type, body.size(), more, with_body ? body : std::string());
}

/// The response to a request's head.
std::string respond_to(std::string_view head, const std::string& path,
                       const std::string& content_type, const std::function<std::string()>& make) {
    const std::string plain = "text/plain; charset=utf-8";
    const auto refuse = [&](const char* status, const std::string& more = {}) {
        return response_of(status, plain, more, fmt::format("{}\n", status), true);
    };
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const std::size_t first = line.find(' ');
    const std::size_t last = line.rfind(' ');
    if (first == std::string_view::npos || last <= first ||
        !line.substr(last + 1).starts_with("HTTP/1."))
        return refuse("400 Bad Request");
    const std::string_view method = line.substr(0, first);
    const std::string_view target = line.substr(first + 1, last - first - 1);
    if (method != "GET" && method != "HEAD")
        return refuse("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
    if (target.substr(0, target.find('?')) != path)
        return refuse("404 Not Found");
    return response_of("200 OK", content_type, {}, make(), method == "GET");
}

} // namespace

std::string Endpoint::to_string() const {
    const std::string host = address.to_string();
    return address.family == Family::ipv4 ? fmt::format("{}:{}", host, port)
                                          : fmt::format("[{}]:{}", host, port);
}

Result<Endpoint> Endpoint::parse(const std::string& text) {
    const Error error =
        Error::usage(fmt::format("'{}' is no address and port", text),
                     "ADDRESS:PORT, as 127.0.0.1:9435 or [::1]:9435; port 0 is one that is free");
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos)
        return error;
    std::string host = text.substr(0, colon);
    const bool bracketed = host.starts_with('[') && host.ends_with(']');
    if (bracketed)
        host = host.substr(1, host.size() - 2);
    const auto address = Address::parse(host);
    if (!address || bracketed != (address->family == Family::ipv6))
        return error;
    Endpoint endpoint{*address};
    const char* const end = text.data() + text.size();
    const auto [behind, wrong] = std::from_chars(text.data() + colon + 1, end, endpoint.port);
    if (wrong != std::errc() || behind != end)
        return error;
    return endpoint;
}

bool Endpoint::is_loopback() const {
    if (address.family == Family::ipv4)
        return address.bytes[0] == 127;
    return std::all_of(address.bytes.begin(), address.bytes.end() - 1,
                       [](std::uint8_t byte) { return byte == 0; }) &&
           address.bytes.back() == 1;
}

Result<PageServer> PageServer::listen(const Endpoint& endpoint) {
    SocketAddress address;
    socklen_t length = fill(address, endpoint);
    Fd socket(::socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    // A service that is started again gets its port.
    if (!socket || setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(socket.get(), &address.any, length) != 0 || ::listen(socket.get(), 16) != 0 ||
        getsockname(socket.get(), &address.any, &length) != 0)
        return Error::system(errno, fmt::format("cannot listen on {}", endpoint.to_string()));
    Endpoint got = endpoint;
    got.port = ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
    return PageServer(std::move(socket), got);
}

bool PageServer::accept_clients(Time now) {
    while (clients_.size() < max_clients) {
        Fd socket(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (socket) {
            clients_.push_back({std::move(socket), {}, {}, 0, now + time_to_ask});
            continue;
        }
        // Anything else may be the lack of descriptors or memory; that is not to be asked again at once.
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
    }
    return true;
}

bool PageServer::advance(Client& client, Time now,
                         const std::function<std::string(std::string_view)>& respond) {
    if (client.response.empty() || client.done) {
        std::array<char, 4096> part;
        const ssize_t got = recv(client.socket.get(), part.data(), part.size(), 0);
        if (got <= 0)
            return got < 0 && (errno == EAGAIN || errno == EINTR);
        if (client.done) // else what it still sends would make the kernel take our response back
            return true;
        client.request.append(part.data(), static_cast<std::size_t>(got));
        const std::size_t end = client.request.find(head_end);
        if (end == std::string::npos && client.request.size() <= max_request)
            return true;
        client.response =
            end > max_request // or there is none
                ? response_of("431 Request Header Fields Too Large", "text/plain", {}, {}, true)
                : respond(std::string_view(client.request).substr(0, end));
        client.until = std::chrono::steady_clock::now() + time_to_take;
    }
    while (client.sent < client.response.size()) {
        const ssize_t sent = send(client.socket.get(), client.response.data() + client.sent,
                                  client.response.size() - client.sent, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        client.sent += static_cast<std::size_t>(sent);
    }
    client.done = true;
    client.response = {};
    client.sent = 0;
    client.until = now + time_to_close;
    return shutdown(client.socket.get(), SHUT_WR) == 0;
}

Result<> PageServer::serve(const std::string& path, const std::string& content_type,
                           const std::function<std::string()>& make,
                           const std::function<bool()>& stop) {
    const auto respond = [&](std::string_view head) {
        return respond_to(head, path, content_type, make);
    };
    bool may_accept = true;
    while (!stop()) {
        std::vector<pollfd> waits;
        for (const Client& client : clients_)
            waits.push_back({client.socket.get(),
                             static_cast<short>(client.response.empty() ? POLLIN : POLLOUT), 0});
        waits.push_back(
            {may_accept && clients_.size() < max_clients ? socket_.get() : -1, POLLIN, 0});
        if (poll(waits.data(), waits.size(), 1000) < 0 && errno != EINTR)
            return Error::system(errno, "cannot wait for clients");
        const Time now = std::chrono::steady_clock::now();
        // From the end: an index stays that of its client.
        for (std::size_t i = clients_.size(); i-- > 0;)
            if (now >= clients_[i].until ||
                (waits[i].revents != 0 && !advance(clients_[i], now, respond)))
                clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(i));
        may_accept = waits.back().revents == 0 || accept_clients(now);
    }
    return {};
}

} // namespace netctl::sys
