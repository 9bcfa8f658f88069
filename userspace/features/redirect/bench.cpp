// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/bench.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/abi_version.hpp"
#include "features/redirect/clients.hpp"
#include "features/redirect/connection.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/joiner.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto measured_time = std::chrono::milliseconds(60);
constexpr auto warm_time = std::chrono::milliseconds(25);
constexpr auto patience = std::chrono::seconds(2); // until what is to be redirected has joined
constexpr auto warm_step = std::chrono::microseconds(500); // between two looks of the joiner

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

/// Reads a stream to its end.
void swallow(int fd) {
    std::string buffer(1 << 18, '\0');
    for (;;) {
        const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
        if (got == 0)
            return;
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

/// MB/s of a stream from its beginning until `time` is over.
Result<double> push(int fd, const std::string& message, std::chrono::nanoseconds time) {
    const auto begin = Clock::now();
    Clock::duration took{};
    std::uint64_t steps = 0;
    for (; took < time; took = Clock::now() - begin)
        for (int i = 0; i < 64; i++, steps++)
            NETCTL_TRY(send_all(fd, message));
    return static_cast<double>(steps * message.size()) /
           std::chrono::duration<double, std::micro>(took).count();
}

/// Where the two processes run, and how many connections they have.
struct Placement {
    int client_cpu = 0;
    int server_cpu = 0;
    unsigned connections = 1;
};

/// Connections between two processes, measured: µs an exchange, or MB/s.
Result<double> measure(const BenchOptions& options, const Placement& placement,
                       const Datapath& datapath, Joiner& joiner, Over over) {
    std::vector<Fd> ours, theirs;
    for (unsigned i = 0; i < placement.connections; i++) {
        LocalConnection made =
            NETCTL_TRY(over == Over::unix_socket ? open_unix() : LocalConnection::open());
        if (over == Over::tcp)
            NETCTL_TRY(stay_on_tcp(made.client.get()));
        ours.push_back(std::move(made.client));
        theirs.push_back(std::move(made.server));
    }
    const pid_t server = fork();
    if (server < 0)
        return Error::system(errno, "fork");
    if (server == 0) {
        ours.clear();
        run_on(placement.server_cpu);
        if (!options.stream)
            _exit(serve(theirs, options.size, std::string(options.size, 'r')) ? 0 : 1);
        swallow(theirs[0].get());
        _exit(0);
    }
    theirs.clear();
    run_on(placement.client_cpu);
    const auto work = [&]() -> Result<double> {
        const std::string message(options.size, 'q');
        const int stream = ours[0].get();
        Clients clients = NETCTL_TRY(Clients::make(std::move(ours), message, options.size));
        const auto run = [&](std::chrono::nanoseconds time) {
            return options.stream ? push(stream, message, time) : clients.run(time);
        };
        // Warm: long enough to be announced, joined, and past the grace time. A stream never joins.
        const bool joins = over == Over::redirected && !options.stream;
        const std::uint64_t before = NETCTL_TRY(datapath.stats()).joined;
        bool joined = !joins;
        for (const auto begin = Clock::now();
             Clock::now() < begin + warm_time || (!joined && Clock::now() < begin + patience);) {
            NETCTL_TRY(run(warm_step));
            NETCTL_TRY(joiner.poll(0));
            if (joins)
                joined = NETCTL_TRY(datapath.stats()).joined >= before + placement.connections;
        }
        return run(measured_time);
    };
    Result<double> figure = work();
    kill(server, SIGKILL); // all is measured, whatever it still waits for
    waitpid(server, nullptr, 0);
    return figure;
}

Result<BenchReport::Line> measure_line(const BenchOptions& options, Datapath& datapath,
                                       Joiner& joiner, const Placement& placement) {
    Datapath::Bank nothing, everything;
    everything.rules[0].action = NC_RD_ALLOW;
    everything.rules[0].dport_high = 65535;
    Rounds rounds;
    std::vector<double> unix_sockets;
    const auto run = [&](Over over, std::vector<double>& into) -> Result<> {
        NETCTL_TRY(datapath.commit_bank(over == Over::redirected ? everything : nothing));
        into.push_back(NETCTL_TRY(measure(options, placement, datapath, joiner, over)));
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
    line.placement = placement.client_cpu == placement.server_cpu ? "one CPU" : "two CPUs";
    line.connections = placement.connections;
    line.unit = options.stream ? "MB/s" : "µs";
    line.unix_socket = median(unix_sockets);
    return line;
}

} // namespace

Result<BenchReport> run_bench(const BenchOptions& options) {
    const std::vector<int> cpus = usable_cpus();
    if (cpus.empty())
        return Error::system(errno, "sched_getaffinity");
    std::vector<Placement> placements{{cpus.front(), cpus.front(), 1}};
    if (cpus.size() > 1)
        placements.push_back({cpus[0], cpus[1], 1});
    if (options.connections > 1 && !options.stream)
        placements.push_back({cpus.front(), placements.back().server_cpu, options.connections});
    return report_from_cgroup(
        [&](const sys::Cgroup& cgroup) -> Result<BenchReport> {
            Datapath datapath = NETCTL_TRY(Datapath::load({}));
            nc_rd_conf conf{};
            conf.abi_version = abi_version();
            conf.cgroup = cgroup.id;
            NETCTL_TRY(datapath.set_conf(conf));
            NETCTL_TRY(datapath.attach(cgroup));
            Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
            BenchReport report;
            for (const Placement& placement : placements)
                report.lines.push_back(
                    NETCTL_TRY(measure_line(options, datapath, joiner, placement)));
            report.verdict = judge(report.lines, options.stream);
            return report;
        },
        options.rounds * 4 * 3 * 2000 + 20000);
}

} // namespace netctl::redirect
