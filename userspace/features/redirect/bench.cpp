// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/bench.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "features/redirect/connection.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/joiner.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto measured_time = std::chrono::milliseconds(60);

/// The CPUs that this process may use.
std::vector<int> usable_cpus() {
    cpu_set_t set;
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &set))
                cpus.push_back(cpu);
    return cpus;
}

void run_on(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/// What a server does: waits in poll, reads, and answers or not.
[[noreturn]] void serve(int fd, std::size_t size, bool answer) {
    const std::string response(size, 'r');
    if (answer) {
        for (;;) {
            const auto got = receive(fd, size);
            if (got && got->size() == size && send_all(fd, response))
                continue;
            if (got && !got->empty())
                _exit(1);
            if (got) // the end of the stream
                _exit(0);
        }
    }
    std::string buffer(1 << 18, '\0');
    for (;;) {
        const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
        if (got == 0)
            _exit(0);
        pollfd entry{fd, POLLIN, 0};
        if (got < 0)
            poll(&entry, 1, 1000);
    }
}

/// The same over a Unix socket, which programs of one host could use instead.
Result<LocalConnection> open_unix() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return Error::system(errno, "cannot make a pair of Unix sockets");
    LocalConnection made;
    made.client = Fd(ends[0]);
    made.server = Fd(ends[1]);
    return made;
}

enum class Over : std::uint8_t { tcp, redirected, unix_socket };

/// One connection, measured: µs a round trip, or MB/s.
Result<double> measure(const BenchOptions& options, int client_cpu, int server_cpu, Joiner& joiner,
                       Over over) {
    LocalConnection connection =
        NETCTL_TRY(over == Over::unix_socket ? open_unix() : LocalConnection::open());
    if (over == Over::tcp)
        NETCTL_TRY(stay_on_tcp(connection.client.get()));
    const pid_t server = fork();
    if (server < 0)
        return Error::system(errno, "fork");
    if (server == 0) {
        connection.client.reset();
        run_on(server_cpu);
        serve(connection.server.get(), options.size, !options.stream);
    }
    connection.server.reset();
    run_on(client_cpu);
    const int fd = connection.client.get();
    const std::string message(options.size, 'q');
    const auto step = [&]() -> Result<> {
        NETCTL_TRY(send_all(fd, message));
        if (!options.stream)
            NETCTL_TRY(receive(fd, options.size));
        return {};
    };
    Result<> outcome;
    std::uint64_t steps = 0;
    Clock::duration took{};
    // Warm: long enough to be announced, joined, and past the grace time.
    for (const auto end = Clock::now() + std::chrono::milliseconds(25);
         outcome && Clock::now() < end;) {
        for (int i = 0; i < 20 && outcome; i++)
            outcome = step();
        if (outcome)
            outcome = joiner.poll(0);
    }
    const auto begin = Clock::now();
    while (outcome && took < measured_time) {
        for (int i = 0; i < 64 && outcome; i++, steps++)
            outcome = step();
        took = Clock::now() - begin;
    }
    connection.client.reset();
    waitpid(server, nullptr, 0);
    if (!outcome)
        return std::move(outcome).error();
    const double us = std::chrono::duration<double, std::micro>(took).count();
    return options.stream ? static_cast<double>(steps * options.size) / us
                          : us / static_cast<double>(steps);
}

double median(std::vector<double> values, double at = 0.5) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(
        std::lround(at * static_cast<double>(values.size() - 1)))];
}

Result<BenchReport::Line> measure_line(const BenchOptions& options, Datapath& datapath,
                                       Joiner& joiner, int client_cpu, int server_cpu) {
    Datapath::Bank nothing, everything;
    everything.rules[0].action = NC_RD_ALLOW;
    everything.rules[0].dport_high = 65535;
    Rounds rounds;
    std::vector<double> unix_sockets;
    const auto run = [&](Over over, std::vector<double>& into) -> Result<> {
        NETCTL_TRY(datapath.commit_bank(over == Over::redirected ? everything : nothing));
        into.push_back(NETCTL_TRY(measure(options, client_cpu, server_cpu, joiner, over)));
        return {};
    };
    const nc_rd_stats before = NETCTL_TRY(datapath.stats());
    for (unsigned round = 0; round < options.rounds; round++) {
        NETCTL_TRY(run(Over::tcp, rounds.tcp));
        NETCTL_TRY(run(Over::redirected, rounds.redirected));
        NETCTL_TRY(run(Over::tcp, rounds.again));
        NETCTL_TRY(run(Over::unix_socket, unix_sockets));
    }
    const nc_rd_stats after = NETCTL_TRY(datapath.stats());
    BenchReport::Line line = rounds.line(before, after);
    line.unit = options.stream ? "MB/s" : "µs";
    line.unix_socket = median(unix_sockets);
    return line;
}

} // namespace

BenchReport::Line Rounds::line(const nc_rd_stats& before, const nc_rd_stats& after) const {
    std::vector<double> ratios, control;
    for (std::size_t i = 0; i < tcp.size(); i++) {
        ratios.push_back(2 * redirected[i] / (tcp[i] + again[i]));
        control.push_back(again[i] / tcp[i]);
    }
    BenchReport::Line line;
    line.tcp = median(tcp);
    line.redirected = median(redirected);
    line.ratio = median(ratios);
    line.control_low = median(control, 0.25);
    line.control_high = median(control, 0.75);
    const auto moved = static_cast<double>(after.redirected_messages - before.redirected_messages);
    const auto passed = static_cast<double>(after.passed_messages - before.passed_messages);
    line.share = moved + passed > 0 ? moved / (moved + passed) : 0;
    return line;
}

std::string judge(const std::vector<BenchReport::Line>& lines, bool higher_is_better) {
    bool better = false, worse = false;
    for (const BenchReport::Line& line : lines) {
        // In time less is better, in throughput more.
        const double gain = higher_is_better ? line.ratio : 1 / line.ratio;
        const double low = std::min({line.control_low, 1 / line.control_high, 0.97});
        better = better || gain > 1 / low;
        worse = worse || gain < low;
    }
    if (better && worse)
        return "it depends on where the two processes run: better in one placement, worse in the "
               "other";
    if (better)
        return higher_is_better ? "streams are faster with redirection here"
                                : "worth it here for requests and responses of this size";
    if (worse)
        return "not worth it here: slower than TCP";
    return higher_is_better ? "streams are as fast as without: they stay on TCP"
                            : "not worth it here: no difference beyond the scatter of TCP itself";
}

Result<BenchReport> run_bench(const BenchOptions& options) {
    const std::vector<int> cpus = usable_cpus();
    const std::string output = NETCTL_TRY(run_in_cgroup(
        [&](const sys::Cgroup& cgroup, int fd) {
            const auto say = [fd](const std::string& text) {
                if (::write(fd, text.data(), text.size()) < 0)
                    _exit(1);
            };
            const auto all = [&]() -> Result<> {
                Datapath datapath = NETCTL_TRY(Datapath::load({}));
                nc_rd_conf conf{};
                conf.abi_version = NC_ABI_VERSION;
                conf.cgroup = cgroup.id;
                NETCTL_TRY(datapath.set_conf(conf));
                NETCTL_TRY(datapath.attach(cgroup));
                Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
                for (std::size_t i = 0; i < std::min<std::size_t>(cpus.size(), 2); i++) {
                    const auto line =
                        NETCTL_TRY(measure_line(options, datapath, joiner, cpus[0], cpus[i]));
                    say(fmt::format("{} {} {} {} {} {} {} {}\n", i, line.tcp, line.redirected,
                                    line.ratio, line.control_low, line.control_high, line.share,
                                    line.unix_socket));
                }
                return {};
            };
            const Result<> outcome = all();
            if (!outcome)
                say(fmt::format("error {}\n", outcome.error().what));
        },
        options.rounds * 4 * 2 * 2000 + 20000));
    BenchReport report;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("error ") || line.starts_with("timeout"))
            return Error::failed(line.substr(line.find_first_of(" \t") + 1));
        std::istringstream words(line);
        std::size_t index = 0;
        BenchReport::Line one;
        words >> index >> one.tcp >> one.redirected >> one.ratio >> one.control_low >>
            one.control_high >> one.share >> one.unix_socket;
        one.placement = index == 0 ? "one CPU" : "two CPUs";
        one.unit = options.stream ? "MB/s" : "µs";
        report.lines.push_back(one);
    }
    if (report.lines.empty())
        return Error::failed("the measuring process ended without a word");
    report.verdict = judge(report.lines, options.stream);
    return report;
}

} // namespace netctl::redirect
