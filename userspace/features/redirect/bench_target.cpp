// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/bench_target.hpp"

#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "features/redirect/clients.hpp"
#include "features/redirect/connection.hpp"
#include "features/redirect/joiner.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr auto target_measured_time = Milliseconds(60);
constexpr auto target_warm_time = Milliseconds(60);
constexpr auto joining_time = Milliseconds(500); // after that it is not going to be redirected
constexpr auto first_answer = Milliseconds(2000);
constexpr auto target_warm_step = Milliseconds(1); // between two looks of the joiner
constexpr int silence_ms = 100;                    // the first answer is complete
constexpr std::size_t largest_answer = 1 << 20;
constexpr auto longest_connection = Milliseconds(1500); // twice what one is used for, and more
constexpr std::size_t fewest_requests = 200;            // that a connection can be measured with

struct FreeAddresses {
    void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

struct Server {
    std::string name;
    Addresses address;
    std::uint16_t port = 0;
};

Result<Server> resolve(const std::string& target) {
    const std::size_t colon = target.rfind(':');
    const Error wrong = Error::usage(fmt::format("--target: '{}' is no HOST:PORT", target),
                                     "as in 127.0.0.1:6379, localhost:80 or [::1]:8080");
    if (colon == std::string::npos || colon == 0)
        return wrong;
    std::string host = target.substr(0, colon);
    const std::string port = target.substr(colon + 1);
    const bool bracketed = host.front() == '[' && host.back() == ']';
    if (bracketed)
        host = host.substr(1, host.size() - 2);
    if (port.empty() || port.size() > 5 || host.empty() ||
        port.find_first_not_of("0123456789") != std::string::npos ||
        (host.find(':') != std::string::npos) != bracketed)
        return wrong;
    const unsigned long number = std::stoul(port);
    if (number == 0 || number > 65535)
        return wrong;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int status = getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
    if (status != 0)
        return Error::failed(fmt::format("--target: {}: {}", host, gai_strerror(status)));
    return Server{target, Addresses(list), static_cast<std::uint16_t>(number)};
}

Result<Fd> connect_to(const Server& server) {
    int code = 0;
    for (const addrinfo* one = server.address.get(); one; one = one->ai_next) {
        Fd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const timeval patience{2, 0}; // for connect
        if (fd)
            setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        if (!fd || connect(fd.get(), one->ai_addr, one->ai_addrlen) != 0) {
            code = errno;
            continue;
        }
        const int on = 1;
        if (setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
            fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0)
            return Error::system(errno, "cannot set up a socket");
        return fd;
    }
    return Error::system(code, fmt::format("cannot connect to {}", server.name));
}

/// The server's first answer, which tells how long all are.
Result<std::string> ask_first(const Server& server, const std::string& request) {
    const Fd fd = NETCTL_TRY(connect_to(server));
    NETCTL_TRY(send_all(fd.get(), request));
    std::string answer;
    std::array<char, 65536> buffer;
    for (int patience = first_answer.count();; patience = silence_ms) {
        pollfd entry{fd.get(), POLLIN, 0};
        if (poll(&entry, 1, patience) != 1)
            break;
        const ssize_t got = recv(fd.get(), buffer.data(), buffer.size(), 0);
        if (got < 0)
            return Error::system(errno, fmt::format("recv from {}", server.name));
        if (got == 0)
            return Error::failed(
                fmt::format("{} closed the connection after {} bytes", server.name, answer.size()),
                "a request is needed after which it stays open: --send, as in "
                "--send 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'");
        answer.append(buffer.data(), static_cast<std::size_t>(got));
        if (answer.size() > largest_answer)
            return Error::failed(fmt::format("{} does not stop answering", server.name));
    }
    if (answer.empty())
        return Error::failed(
            fmt::format("{} does not answer a request of {} bytes", server.name, request.size()),
            "--send TEXT gives one that it understands, as in --send 'PING\\r\\n'");
    return answer;
}

Result<Clients> open_clients(const Server& server, const std::string& request, std::size_t answer,
                             unsigned count) {
    std::vector<Fd> connections;
    for (unsigned i = 0; i < count; i++)
        connections.push_back(NETCTL_TRY(connect_to(server)));
    return Clients::make(std::move(connections), request, answer);
}

/// After how many answers the server ends a connection (nginx: keepalive_requests); nothing if it does not
/// while one is used.
Result<std::optional<std::size_t>>
answers_a_connection(const Server& server, const std::string& request, std::size_t answer) {
    Clients clients = NETCTL_TRY(open_clients(server, request, answer, 1));
    auto asked = clients.run(longest_connection);
    if (asked)
        return std::optional<std::size_t>();
    if (!clients.closed() || clients.exchanges() == 0)
        return std::move(asked).error();
    if (clients.exchanges() < fewest_requests)
        return Error::failed(
            fmt::format("{} ends a connection after {} answers: too few to be measured",
                        server.name, clients.exchanges()),
            "a server that is to be measured has to keep connections for longer");
    return std::optional(clients.exchanges());
}

/// Some servers serve one connection after the other.
Result<> prove_served_at_once(const Server& server, const std::string& request, std::size_t answer,
                              unsigned count) {
    Clients clients = NETCTL_TRY(open_clients(server, request, answer, count));
    clients.set_patience(first_answer);
    NETCTL_TRY(clients.run(Milliseconds(0)));
    return {};
}

/// Takes turns, within the cgroup `own` below that of the server.
class Measurement {
  public:
    Measurement(const TargetOptions& options, const Server& server, const std::string& request,
                std::size_t answer, std::optional<std::size_t> budget, Datapath& datapath,
                Joiner& joiner, std::uint64_t own)
        : options_(options),
          server_(server),
          request_(request),
          answer_(answer),
          budget_(budget),
          datapath_(datapath),
          joiner_(joiner) {
        allowed_.rules[0].action = NC_RD_ALLOW;
        allowed_.rules[0].dport_low = allowed_.rules[0].dport_high = server.port;
        allowed_.rules[0].cgroup = own;
    }

    /// With that many connections at once.
    Result<BenchReport::Line> run(unsigned connections) {
        hopeless_ = false;
        Rounds rounds;
        const nc_rd_stats before = NETCTL_TRY(datapath_.stats());
        for (unsigned round = 0; round < options_.rounds; round++) {
            rounds.tcp.push_back(NETCTL_TRY(once(connections, false)));
            rounds.redirected.push_back(NETCTL_TRY(once(connections, true)));
            rounds.again.push_back(NETCTL_TRY(once(connections, false)));
        }
        BenchReport::Line line = rounds.line(before, NETCTL_TRY(datapath_.stats()));
        line.placement = server_.name;
        line.connections = connections;
        line.unit = "µs";
        return line;
    }

  private:
    Result<double> once(unsigned connections, bool redirected) {
        NETCTL_TRY(datapath_.commit_bank(redirected ? allowed_ : Datapath::Bank{}));
        Clients clients = NETCTL_TRY(open_clients(server_, request_, answer_, connections));
        if (!redirected)
            NETCTL_TRY(clients.stay_on_tcp());
        if (budget_)
            clients.set_budget(*budget_);
        // Half of what a connection may ask is for the measurement.
        const auto warm = [&] { return budget_ && clients.left() <= *budget_ / 2; };
        // Both directions of each.
        const std::uint64_t turned = NETCTL_TRY(datapath_.stats()).turns + 2 * clients.count();
        const auto begin = Clock::now();
        while (!warm() && Clock::now() - begin <
                              (redirected && !hopeless_ ? joining_time : target_warm_time)) {
            NETCTL_TRY(clients.run(target_warm_step));
            NETCTL_TRY(joiner_.poll(0));
            if (redirected && Clock::now() - begin >= target_warm_time &&
                NETCTL_TRY(datapath_.stats()).turns >= turned)
                return clients.run(target_measured_time);
        }
        hopeless_ = hopeless_ || (redirected && !warm());
        return clients.run(target_measured_time);
    }

    const TargetOptions& options_;
    const Server& server_;
    const std::string& request_;
    std::size_t answer_;
    std::optional<std::size_t> budget_; ///< requests a connection
    Datapath& datapath_;
    Joiner& joiner_;
    Datapath::Bank allowed_;
    bool hopeless_ = false; // connections that were to be redirected were not
};

/// Why connections stayed on TCP: what was counted most.
std::string main_reason(const nc_rd_stats& stats) {
    std::uint32_t most = 0;
    for (std::uint32_t reason = 1; reason < NC_RD_REASONS; reason++)
        if (reason != NC_RD_REASON_CLOSED && stats.on_tcp[reason] > stats.on_tcp[most])
            most = reason;
    if (most != 0)
        return reason_name(most);
    return stats.announced != 0 ? reason_name(NC_RD_REASON_OUTSIDE)
                                : reason_name(NC_RD_REASON_NO_PEER);
}

Result<BenchReport> measure_all(const TargetOptions& options, const Server& server,
                                const std::string& request, std::size_t answer,
                                Measurement& measurement) {
    BenchReport report;
    report.lines.push_back(NETCTL_TRY(measurement.run(1)));
    if (options.connections == 1)
        return report;
    const auto served = prove_served_at_once(server, request, answer, options.connections);
    if (served)
        report.lines.push_back(NETCTL_TRY(measurement.run(options.connections)));
    else
        report.notes.push_back(fmt::format("{} does not serve {} connections at once: {}",
                                           server.name, options.connections, served.error().what));
    return report;
}

std::string verdict(const BenchReport& report, const Server& server, const nc_rd_stats& stats) {
    if (report.lines.front().share > 0.5)
        return judge(report.lines, false);
    const std::string reason = main_reason(stats);
    if (reason == reason_name(NC_RD_REASON_ULP))
        return fmt::format("connections to {} have another user ({}): kTLS, MPTCP, or "
                           "redirection that is enabled already",
                           server.name, reason);
    return fmt::format("redirection does not apply to {}: its connections stayed on TCP ({})",
                       server.name, reason);
}

} // namespace

Result<std::string> unescape(const std::string& text) {
    const auto digit = [](char c) {
        return c <= '9' ? c - '0' : std::tolower(static_cast<unsigned char>(c)) - 'a' + 10;
    };
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); i++) {
        if (text[i] != '\\') {
            bytes += text[i];
            continue;
        }
        const char kind = ++i < text.size() ? text[i] : '\0';
        const std::string hex = kind == 'x' ? text.substr(i + 1, 2) : std::string();
        if (hex.size() == 2 && std::isxdigit(static_cast<unsigned char>(hex[0])) &&
            std::isxdigit(static_cast<unsigned char>(hex[1]))) {
            bytes += static_cast<char>(16 * digit(hex[0]) + digit(hex[1]));
            i += 2;
            continue;
        }
        constexpr std::string_view letters = "rnt0\\", meant{"\r\n\t\0\\", 5};
        const std::size_t at = kind == '\0' ? std::string_view::npos : letters.find(kind);
        if (at == std::string_view::npos)
            return Error::usage(fmt::format("--send: '\\{}' means nothing", std::string(1, kind)),
                                "\\r, \\n, \\t, \\0, \\xHH and \\\\ do");
        bytes += meant[at];
    }
    return bytes;
}

Result<BenchReport> run_target_bench(const TargetOptions& options) {
    const Server server = NETCTL_TRY(resolve(options.target));
    const bool echo = options.request.empty();
    const std::string request = echo ? std::string(options.size - 1, 'q') + '\n' : options.request;
    const std::string answer = NETCTL_TRY(ask_first(server, request));
    if (echo && answer != request)
        return Error::failed(fmt::format("{} does not echo: it answered {} bytes, {} others",
                                         server.name, request.size(), answer.size()),
                             "--send TEXT gives a request that it understands, as in "
                             "--send 'PING\\r\\n'");
    const sys::Cgroup above = NETCTL_TRY(sys::find_cgroup(options.enable.cgroup));
    const Fitness fitness = NETCTL_TRY(prove_fit(options.enable));

    auto report = report_from_cgroup(
        [&](const sys::Cgroup& own) -> Result<BenchReport> {
            Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
            nc_rd_conf conf{};
            conf.abi_version = abi_version();
            conf.flags = fitness.flags;
            conf.cgroup = above.id;
            NETCTL_TRY(datapath.set_conf(conf));
            NETCTL_TRY(datapath.attach(above));
            Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
            // One that is plain: there are no rules yet.
            const auto budget = NETCTL_TRY(answers_a_connection(server, request, answer.size()));
            Measurement measurement(options, server, request, answer.size(), budget, datapath,
                                    joiner, own.id);
            auto found = measure_all(options, server, request, answer.size(), measurement);
            const nc_rd_stats stats = NETCTL_TRY(datapath.stats());
            // The server's ends leave the map before the map goes.
            NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 2000));
            if (found && budget)
                found->notes.push_back(
                    fmt::format("{} ends a connection after {} answers: none was asked for more",
                                server.name, *budget));
            if (found)
                found->verdict = verdict(*found, server, stats);
            return found;
        },
        options.rounds * 3 * 2 * 2000 + 60000, options.enable.cgroup);
    if (report)
        report->notes.insert(report->notes.begin(), fitness.notes.begin(), fitness.notes.end());
    return report;
}

} // namespace netctl::redirect
