// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/bench_target.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <memory>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sstream>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "features/redirect/connection.hpp"
#include "features/redirect/joiner.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr auto measured_time = Milliseconds(60);
constexpr auto warm_time = Milliseconds(60);
constexpr auto joining_time = Milliseconds(500); // after that it is not going to be redirected
constexpr int first_answer_ms = 2000;
constexpr int silence_ms = 100; // the first answer is complete
constexpr std::size_t largest_answer = 1 << 20;

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
Result<std::string> first_answer(const Server& server, const std::string& request) {
    const Fd fd = NETCTL_TRY(connect_to(server));
    NETCTL_TRY(send_all(fd.get(), request));
    std::string answer;
    std::array<char, 65536> buffer;
    for (int patience = first_answer_ms;; patience = silence_ms) {
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

/// Requests and answers over one connection: µs a round trip.
class Client {
  public:
    static Result<Client> open(const Server& server, const std::string& request,
                               std::size_t answer) {
        return Client(NETCTL_TRY(connect_to(server)), server.name, request, answer);
    }

    Result<> stay_on_tcp() const { return redirect::stay_on_tcp(fd_.get()); }

    Result<> exchange() {
        NETCTL_TRY(send_all(fd_.get(), request_));
        const auto got = receive(fd_.get(), answer_);
        if (!got || got->size() != answer_)
            return Error::failed(
                fmt::format("{} answered {} requests with {} bytes each, and the next one {}",
                            name_, exchanges_, answer_,
                            got ? fmt::format("with {}", got->size()) : "not in time"),
                "the same request must be answered alike each time, on the same connection");
        exchanges_++;
        return {};
    }

    Result<double> measure() {
        const auto begin = Clock::now();
        const std::size_t before = exchanges_;
        Clock::duration took{};
        for (; took < measured_time; took = Clock::now() - begin)
            for (int i = 0; i < 16; i++)
                NETCTL_TRY(exchange());
        return std::chrono::duration<double, std::micro>(took).count() /
               static_cast<double>(exchanges_ - before);
    }

  private:
    Client(Fd fd, std::string name, std::string request, std::size_t answer)
        : fd_(std::move(fd)),
          name_(std::move(name)),
          request_(std::move(request)),
          answer_(answer) {}
    Fd fd_;
    std::string name_, request_;
    std::size_t answer_;
    std::size_t exchanges_ = 0;
};

/// Takes turns, within the cgroup `own` below that of the server.
class Measurement {
  public:
    Measurement(const TargetOptions& options, const Server& server, const std::string& request,
                std::size_t answer, Datapath& datapath, Joiner& joiner, std::uint64_t own)
        : options_(options),
          server_(server),
          request_(request),
          answer_(answer),
          datapath_(datapath),
          joiner_(joiner) {
        allowed_.rules[0].action = NC_RD_ALLOW;
        allowed_.rules[0].dport_low = allowed_.rules[0].dport_high = server.port;
        allowed_.rules[0].cgroup = own;
    }

    Result<BenchReport::Line> run() {
        Rounds rounds;
        const nc_rd_stats before = NETCTL_TRY(datapath_.stats());
        for (unsigned round = 0; round < options_.rounds; round++) {
            rounds.tcp.push_back(NETCTL_TRY(once(false)));
            rounds.redirected.push_back(NETCTL_TRY(once(true)));
            rounds.again.push_back(NETCTL_TRY(once(false)));
        }
        return rounds.line(before, NETCTL_TRY(datapath_.stats()));
    }

  private:
    Result<double> once(bool redirected) {
        NETCTL_TRY(datapath_.commit_bank(redirected ? allowed_ : Datapath::Bank{}));
        Client client = NETCTL_TRY(Client::open(server_, request_, answer_));
        if (!redirected)
            NETCTL_TRY(client.stay_on_tcp());
        const std::uint64_t turns = NETCTL_TRY(datapath_.stats()).turns;
        const auto begin = Clock::now();
        while (Clock::now() - begin < (redirected && !hopeless_ ? joining_time : warm_time)) {
            for (int i = 0; i < 8; i++)
                NETCTL_TRY(client.exchange());
            NETCTL_TRY(joiner_.poll(0));
            if (redirected && Clock::now() - begin >= warm_time &&
                NETCTL_TRY(datapath_.stats()).turns >= turns + 2)
                return client.measure();
        }
        hopeless_ = hopeless_ || redirected;
        return client.measure();
    }

    const TargetOptions& options_;
    const Server& server_;
    const std::string& request_;
    std::size_t answer_;
    Datapath& datapath_;
    Joiner& joiner_;
    Datapath::Bank allowed_;
    bool hopeless_ = false; // a connection that was to be redirected was not
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
    const std::string answer = NETCTL_TRY(first_answer(server, request));
    if (echo && answer != request)
        return Error::failed(fmt::format("{} does not echo: it answered {} bytes, {} others",
                                         server.name, request.size(), answer.size()),
                             "--send TEXT gives a request that it understands, as in "
                             "--send 'PING\\r\\n'");
    const sys::Cgroup above = NETCTL_TRY(sys::find_cgroup(options.enable.cgroup));
    const Fitness fitness = NETCTL_TRY(prove_fit(options.enable));

    const std::string output = NETCTL_TRY(run_in_cgroup(
        [&](const sys::Cgroup& own, int fd) {
            const auto say = [fd](const std::string& text) {
                if (::write(fd, text.data(), text.size()) < 0)
                    _exit(1);
            };
            const auto all = [&]() -> Result<> {
                Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
                nc_rd_conf conf{};
                conf.abi_version = NC_ABI_VERSION;
                conf.flags = fitness.flags;
                conf.cgroup = above.id;
                NETCTL_TRY(datapath.set_conf(conf));
                NETCTL_TRY(datapath.attach(above));
                Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
                Measurement measurement(options, server, request, answer.size(), datapath, joiner,
                                        own.id);
                const auto line = measurement.run();
                const nc_rd_stats stats = NETCTL_TRY(datapath.stats());
                // The server's ends leave the map before the map goes.
                NETCTL_TRY(datapath.leave_all(NC_RD_REASON_DRAINED, 2000));
                if (!line)
                    return line.error();
                say(fmt::format("{} {} {} {} {} {} {}\n", line->tcp, line->redirected, line->ratio,
                                line->control_low, line->control_high, line->share,
                                main_reason(stats)));
                return {};
            };
            const Result<> outcome = all();
            if (!outcome)
                say(fmt::format("error {}\n", outcome.error().what));
        },
        options.rounds * 3 * 2000 + 60000, options.enable.cgroup));
    BenchReport report;
    if (output.starts_with("error ") || output.starts_with("timeout"))
        return Error::failed(output.substr(output.find_first_of(" \t") + 1,
                                           output.find('\n') - output.find_first_of(" \t") - 1));
    BenchReport::Line line;
    std::string reason;
    std::istringstream words(output);
    if (!(words >> line.tcp >> line.redirected >> line.ratio >> line.control_low >>
          line.control_high >> line.share >> reason))
        return Error::failed("the measuring process ended without a word");
    line.placement = server.name;
    line.unit = "µs";
    report.lines.push_back(line);
    if (line.share > 0.5)
        report.verdict = judge(report.lines, false);
    else if (reason == reason_name(NC_RD_REASON_ULP))
        report.verdict = fmt::format("connections to {} have another user ({}): kTLS, MPTCP, or "
                                     "redirection that is enabled already",
                                     server.name, reason);
    else
        report.verdict =
            fmt::format("redirection does not apply to {}: its connections stayed on TCP ({})",
                        server.name, reason);
    report.notes = fitness.notes;
    return report;
}

} // namespace netctl::redirect
