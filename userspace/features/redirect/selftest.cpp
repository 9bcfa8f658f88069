// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/selftest.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/abi_version.hpp"
#include "features/redirect/connection.hpp"
#include "features/redirect/controller.hpp"
#include "features/redirect/joiner.hpp"
#include "sys/netlink.hpp"
#include "sys/netns.hpp"

namespace netctl::redirect {

namespace {

using Clock = std::chrono::steady_clock;

/// A connection with the datapath that it is under; what a case plays with.
class Bench {
  public:
    Bench(Datapath& datapath, Joiner& joiner) : datapath_(datapath), joiner_(joiner) {}

    Result<> open(bool ipv6 = false) {
        connection_ = NETCTL_TRY(LocalConnection::open(ipv6));
        slot_.reset();
        return {};
    }
    Result<> open_to(std::uint32_t address, const std::string& netns) {
        connection_ = NETCTL_TRY(LocalConnection::open_to(address, netns));
        slot_.reset();
        return {};
    }
    int client() const { return connection_.client.get(); }
    int server() const { return connection_.server.get(); }
    void close_server() { connection_.server.reset(); }

    /// One request and one response.
    Result<> turn() {
        const std::string request(64, 'q'), response(64, 'r');
        NETCTL_TRY(send_all(client(), request));
        if (NETCTL_TRY(receive(server(), request.size())) != request)
            return Error::failed("a request arrived changed");
        NETCTL_TRY(send_all(server(), response));
        if (NETCTL_TRY(receive(client(), response.size())) != response)
            return Error::failed("a response arrived changed");
        return {};
    }

    /// Turns until the connection is in the map.
    Result<> join() {
        return turns_until([](const nc_rd_pair& pair) { return pair.state == NC_RD_JOINED; },
                           "the connection was not joined");
    }
    /// Turns until both directions are redirected.
    Result<> redirect() {
        NETCTL_TRY(join());
        return turns_until(
            [](const nc_rd_pair& pair) { return is_redirected(pair, 0) && is_redirected(pair, 1); },
            "the connection was joined but not redirected");
    }
    /// Waits until it has left the map.
    Result<> await_left() {
        for (const auto end = deadline(); Clock::now() < end; poll(nullptr, 0, 1))
            if (!NETCTL_TRY(find()))
                return {};
        return Error::failed(
            fmt::format("the connection did not leave the map within {} ms", patience_ms));
    }
    /// Messages that went by TCP while it was joined.
    Result<std::uint64_t> passed() {
        const auto pair = NETCTL_TRY(find());
        return pair ? pair->passed_messages[0] + pair->passed_messages[1] : 0;
    }
    /// Whether none is to go that way.
    Result<bool> never_passes() const {
        return (NETCTL_TRY(datapath_.conf()).flags & NC_RD_NEVER_PASS) != 0;
    }
    /// Turns with no joiner at work, until the connection may join as soon as there is one.
    Result<> announce() {
        const std::uint64_t before = NETCTL_TRY(datapath_.stats()).announced;
        for (const auto end = deadline(); Clock::now() < end;) {
            NETCTL_TRY(turn());
            if (NETCTL_TRY(datapath_.stats()).announced >= before + 2)
                return {};
        }
        return Error::failed("the connection was not announced");
    }
    /// Whether it is in the map, be it leaving.
    Result<bool> is_joined() { return NETCTL_TRY(find()).has_value(); }
    /// What the joiner does meanwhile.
    Result<> let_joiner(int timeout_ms) { return joiner_.poll(timeout_ms); }

  private:
    static Clock::time_point deadline() {
        return Clock::now() + std::chrono::milliseconds(patience_ms);
    }

    bool is_ours(const nc_rd_pair& pair) const {
        const auto has = [&](std::uint16_t local, std::uint16_t remote) {
            return pair.end.local_port == local && pair.end.remote_port == remote;
        };
        return pair.state != NC_RD_FREE && (has(connection_.client_port, connection_.server_port) ||
                                            has(connection_.server_port, connection_.client_port));
    }

    Result<std::optional<nc_rd_pair>> find() {
        if (!slot_) { // searched once: reading all is dear
            const std::vector<nc_rd_pair> all = NETCTL_TRY(datapath_.pairs());
            for (std::uint32_t slot = 0; slot < all.size(); slot++)
                if (is_ours(all[slot]))
                    slot_ = slot;
        }
        std::optional<nc_rd_pair> found;
        if (slot_) {
            const nc_rd_pair pair = NETCTL_TRY(datapath_.pair(*slot_));
            if (is_ours(pair))
                found = pair;
        }
        return found;
    }

    Result<> turns_until(const std::function<bool(const nc_rd_pair&)>& done, const char* what) {
        // Not a number of turns: how many fit into the grace time is up to the machine.
        for (const auto end = deadline(); Clock::now() < end;) {
            for (int i = 0; i < 8; i++)
                NETCTL_TRY(turn());
            NETCTL_TRY(joiner_.poll(0));
            const auto pair = NETCTL_TRY(find());
            if (pair && done(*pair))
                return {};
        }
        std::string reasons;
        const nc_rd_stats stats = NETCTL_TRY(datapath_.stats());
        for (std::uint32_t reason = 1; reason < NC_RD_REASONS; reason++)
            if (stats.on_tcp[reason] != 0)
                reasons += fmt::format("{}{}", reasons.empty() ? "" : ", ", reason_name(reason));
        if (joiner_.refusal() != 0)
            reasons += fmt::format("; the kernel said: {}", error_text(-joiner_.refusal()));
        return Error::failed(fmt::format("{} ({} announced; {})", what, stats.announced,
                                         reasons.empty() ? "no reason was noted" : reasons));
    }

    Datapath& datapath_;
    Joiner& joiner_;
    LocalConnection connection_;
    std::optional<std::uint32_t> slot_;
};

Result<> expect(bool holds, const std::string& otherwise) {
    if (!holds)
        return Error::failed(otherwise);
    return {};
}

Result<int> unread(int fd) {
    int bytes = -1;
    if (ioctl(fd, FIONREAD, &bytes) != 0)
        return Error::system(errno, "FIONREAD");
    return bytes;
}

Result<> await_readable(int fd) {
    pollfd entry{fd, POLLIN, 0};
    if (poll(&entry, 1, patience_ms) != 1)
        return Error::failed("poll reports nothing to read");
    return {};
}

/// For where poll() is not to report them.
Result<> await_unread(int fd, int bytes) {
    for (const auto end = Clock::now() + std::chrono::milliseconds(patience_ms); Clock::now() < end;
         poll(nullptr, 0, 1))
        if (NETCTL_TRY(unread(fd)) >= bytes)
            return {};
    return Error::failed(fmt::format("{} bytes did not arrive", bytes));
}

Result<> case_joins(Bench& bench) {
    NETCTL_TRY(bench.open());
    return bench.redirect();
}

Result<> case_ipv6(Bench& bench) {
    const Fd any(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!any && errno == EAFNOSUPPORT)
        return {}; // this kernel runs without it
    NETCTL_TRY(bench.open(true));
    return bench.redirect();
}

Result<> case_fionread_passed(Bench& bench) {
    // Where the CPU is away for the whole grace time the message is redirected and proves nothing.
    for (int i = 0; i < 100; i++) {
        NETCTL_TRY(bench.open());
        NETCTL_TRY(bench.join()); // and for a while, messages still go by TCP
        const std::uint64_t before = NETCTL_TRY(bench.passed());
        NETCTL_TRY(send_all(bench.client(), "12345"));
        NETCTL_TRY(await_readable(bench.server()));
        const int bytes = NETCTL_TRY(unread(bench.server()));
        NETCTL_TRY(expect(bytes == 5, fmt::format("FIONREAD says {} of 5 unread bytes", bytes)));
        if (NETCTL_TRY(bench.never_passes()) || NETCTL_TRY(bench.passed()) > before)
            return {};
    }
    return Error::failed("no message went by TCP while joined: the CPU is away too often to tell");
}

Result<> case_fionread_redirected(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.client(), "12345"));
    NETCTL_TRY(await_readable(bench.server()));
    const int bytes = NETCTL_TRY(unread(bench.server()));
    return expect(bytes == 5, fmt::format("FIONREAD says {} of 5 unread bytes", bytes));
}

Result<> case_order(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    const std::string small = "redirected", large(100000, 'T');
    NETCTL_TRY(send_all(bench.client(), small));
    NETCTL_TRY(send_all(bench.client(), large)); // leaves, and goes by TCP
    const std::string got = NETCTL_TRY(receive(bench.server(), small.size() + large.size()));
    NETCTL_TRY(expect(got == small + large, "bytes arrived out of order or changed"));
    NETCTL_TRY(bench.await_left());
    return bench.turn();
}

Result<> case_half_close(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.client(), "last words"));
    if (shutdown(bench.client(), SHUT_WR) != 0)
        return Error::system(errno, "shutdown");
    const std::string got = NETCTL_TRY(receive(bench.server(), 1000));
    NETCTL_TRY(expect(got == "last words", "what was sent before a shutdown did not arrive"));
    NETCTL_TRY(send_all(bench.server(), "answer"));
    bench.close_server();
    const std::string answer = NETCTL_TRY(receive(bench.client(), 1000));
    return expect(answer == "answer", "the answer after a shutdown did not arrive");
}

Result<> case_close(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.server(), "last words"));
    bench.close_server();
    const std::string got = NETCTL_TRY(receive(bench.client(), 1000));
    return expect(got == "last words", "what was sent before close did not arrive");
}

Result<> case_epoll(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (!epoll || epoll_ctl(epoll.get(), EPOLL_CTL_ADD, bench.server(), &event) != 0)
        return Error::system(errno, "epoll");
    for (int i = 0; i < 3; i++) {
        NETCTL_TRY(send_all(bench.client(), "x"));
        if (epoll_wait(epoll.get(), &event, 1, patience_ms) != 1)
            return Error::failed("edge-triggered epoll does not report a redirected message");
        NETCTL_TRY(receive(bench.server(), 1));
    }
    return {};
}

Result<> case_peek(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.client(), "peek"));
    NETCTL_TRY(await_readable(bench.server()));
    std::array<char, 8> buffer{};
    const ssize_t peeked = recv(bench.server(), buffer.data(), buffer.size(), MSG_PEEK);
    NETCTL_TRY(expect(peeked == 4 && std::memcmp(buffer.data(), "peek", 4) == 0,
                      fmt::format("MSG_PEEK returned {}", peeked)));
    return expect(NETCTL_TRY(receive(bench.server(), 4)) == "peek", "MSG_PEEK took the bytes away");
}

Result<> case_unread(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    // 64 MiB is far above what any TCP buffer takes: the sender must be stopped before.
    const std::string piece(4096, 'u');
    std::size_t sent = 0;
    while (sent < std::size_t{64} << 20) {
        const ssize_t got = send(bench.client(), piece.data(), piece.size(), MSG_NOSIGNAL);
        if (got < 0 && errno == EAGAIN)
            break;
        if (got < 0)
            return Error::system(errno, "send to a reader that does not read");
        sent += static_cast<std::size_t>(got);
    }
    NETCTL_TRY(expect(sent < std::size_t{64} << 20, "unread data is not bounded"));
    const std::string got = NETCTL_TRY(receive(bench.server(), sent));
    NETCTL_TRY(expect(got == std::string(sent, 'u'), "bytes of a slow reader were lost"));
    NETCTL_TRY(bench.await_left());
    return bench.turn();
}

Result<> case_unread_at_join(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.announce());
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (!epoll || epoll_ctl(epoll.get(), EPOLL_CTL_ADD, bench.server(), &event) != 0)
        return Error::system(errno, "epoll");
    NETCTL_TRY(send_all(bench.client(), "request"));
    if (epoll_wait(epoll.get(), &event, 1, patience_ms) != 1)
        return Error::failed("edge-triggered epoll does not report a message");
    for (int i = 0; i < 3; i++)
        NETCTL_TRY(bench.let_joiner(1));
    NETCTL_TRY(expect(!NETCTL_TRY(bench.is_joined()), "it joined while a message was unread"));
    const int bytes = NETCTL_TRY(unread(bench.server()));
    NETCTL_TRY(expect(bytes == 7, fmt::format("FIONREAD says {} of 7 unread bytes", bytes)));
    NETCTL_TRY(expect(NETCTL_TRY(receive(bench.server(), 7)) == "request", "bytes were lost"));
    return bench.redirect();
}

Result<> case_option(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    const int low = 8;
    if (setsockopt(bench.server(), SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low)) != 0)
        return Error::system(errno, "SO_RCVLOWAT");
    NETCTL_TRY(bench.await_left());
    NETCTL_TRY(send_all(bench.client(), "1234"));
    NETCTL_TRY(await_unread(bench.server(), 4));
    pollfd entry{bench.server(), POLLIN, 0};
    NETCTL_TRY(expect(poll(&entry, 1, 0) == 0, "SO_RCVLOWAT is not honoured"));
    NETCTL_TRY(send_all(bench.client(), "5678"));
    NETCTL_TRY(await_readable(bench.server()));
    return expect(NETCTL_TRY(receive(bench.server(), 8)) == "12345678", "bytes were lost");
}

Result<> case_left(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.client(), std::string(20000, 'b')));
    NETCTL_TRY(receive(bench.server(), 20000));
    NETCTL_TRY(bench.await_left());
    NETCTL_TRY(send_all(bench.client(), "12345"));
    NETCTL_TRY(await_readable(bench.server()));
    const int bytes = NETCTL_TRY(unread(bench.server()));
    NETCTL_TRY(expect(bytes == 5, fmt::format("FIONREAD says {} of 5 bytes", bytes)));
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return Error::system(errno, "pipe");
    const Fd read_end(ends[0]), write_end(ends[1]);
    const ssize_t moved = splice(bench.server(), nullptr, write_end.get(), nullptr, 5, 0);
    return expect(moved == 5, fmt::format("splice moved {} of 5 bytes", moved));
}

Result<> case_behind(Bench& bench) {
    NETCTL_TRY(bench.open());
    NETCTL_TRY(bench.redirect());
    std::string sent, got;
    while (sent.size() < Tuning{}.max_ahead + 30000) { // the last of it goes by TCP
        const std::string piece(3500, static_cast<char>('a' + sent.size() % 26));
        NETCTL_TRY(send_all(bench.client(), piece));
        sent += piece;
    }
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (!epoll || epoll_ctl(epoll.get(), EPOLL_CTL_ADD, bench.server(), &event) != 0)
        return Error::system(errno, "epoll");
    // As nginx and tokio read: less than asked for means empty, and a new edge is waited for.
    std::string buffer(65536, '\0');
    while (got.size() < sent.size()) {
        int edge = 0;
        for (int waited = 0; waited < patience_ms && edge == 0; waited += 20) {
            NETCTL_TRY(bench.let_joiner(0));
            edge = epoll_wait(epoll.get(), &event, 1, 20);
        }
        if (edge == 0)
            return Error::failed(fmt::format("nothing reports what is behind the first {} of {} "
                                             "bytes",
                                             got.size(), sent.size()));
        for (std::size_t read = buffer.size(); read == buffer.size(); got.append(buffer, 0, read)) {
            const ssize_t result = recv(bench.server(), buffer.data(), buffer.size(), 0);
            if (result <= 0)
                break;
            read = static_cast<std::size_t>(result);
        }
    }
    return expect(got == sent, "bytes arrived out of order or changed");
}

/// A process that waits in a network namespace of its own.
class OtherNetwork {
  public:
    static Result<OtherNetwork> make() {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0)
            return Error::system(errno, "pipe");
        const Fd read_end(ends[0]);
        Fd write_end(ends[1]);
        OtherNetwork made;
        made.pid_ = fork();
        if (made.pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (unshare(CLONE_NEWNET) == 0 && ::write(write_end.get(), "", 1) == 1)
                for (;;)
                    pause();
            _exit(1);
        }
        write_end.reset();
        char there = 0;
        if (made.pid_ < 0 || ::read(read_end.get(), &there, 1) != 1)
            return Error::failed("cannot make a network namespace");
        return made;
    }
    OtherNetwork(OtherNetwork&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    OtherNetwork& operator=(OtherNetwork&&) = delete;
    OtherNetwork(const OtherNetwork&) = delete;
    OtherNetwork& operator=(const OtherNetwork&) = delete;
    ~OtherNetwork() {
        if (pid_ <= 0)
            return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    pid_t pid() const { return pid_; }
    std::string path() const { return fmt::format("/proc/{}/ns/net", pid_); }

  private:
    OtherNetwork() = default;
    pid_t pid_ = -1;
};

/// Gives an interface of the current namespace an address, unless 0, and has it up.
Result<> set_up(const char* name, std::uint32_t address) {
    const Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
    auto& inet = reinterpret_cast<sockaddr_in&>(request.ifr_addr);
    inet.sin_family = AF_INET;
    inet.sin_addr.s_addr = address;
    bool done = address == 0 || ioctl(any.get(), SIOCSIFADDR, &request) == 0;
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    done = done && ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
    if (!done)
        return Error::system(errno, fmt::format("cannot set up {}", name));
    return {};
}

Result<> case_cross_netns(Bench& bench) {
    const std::uint32_t here = htonl(0xc6120001),
                        there = htonl(0xc6120002); // 198.18.0.0/15, RFC 2544
    const OtherNetwork other = NETCTL_TRY(OtherNetwork::make());
    NETCTL_TRY(sys::make_veth("here", "there", other.pid()));
    NETCTL_TRY(set_up("here", here));
    {
        const auto guard = NETCTL_TRY(sys::NetnsGuard::enter(other.path()));
        NETCTL_TRY(set_up("there", there));
    }
    NETCTL_TRY(bench.open_to(there, other.path()));
    NETCTL_TRY(bench.redirect());
    NETCTL_TRY(send_all(bench.server(), "last words"));
    bench.close_server();
    const std::string got = NETCTL_TRY(receive(bench.client(), 1000));
    return expect(got == "last words", "what was sent before close did not arrive");
}

struct Case {
    const char* name;
    const char* about;
    Result<> (*run)(Bench&);
    std::uint32_t flags = 0; ///< nc_rd_flags that it needs: for these only
};

constexpr std::array cases{
    Case{"redirect", "a connection of requests and responses joins and is redirected", case_joins},
    Case{"ipv6", "an IPv6 connection joins and is redirected", case_ipv6},
    Case{"order", "redirected bytes and those sent by TCP after them arrive in order", case_order},
    Case{"half-close", "shutdown and close deliver what was sent before", case_half_close},
    Case{"close", "close delivers what was sent before", case_close},
    Case{"epoll", "edge-triggered epoll reports redirected messages", case_epoll},
    Case{"peek", "MSG_PEEK sees redirected bytes and leaves them", case_peek},
    Case{"unread", "a sender is stopped when its reader does not read", case_unread},
    Case{"behind", "a reader that was far behind hears of what came by TCP", case_behind},
    Case{"unread-at-join", "a connection does not join while a message is unread",
         case_unread_at_join},
    Case{"option", "an option that cannot be honoured takes the connection out", case_option},
    Case{"left", "a connection that left is plain TCP (FIONREAD, splice)", case_left},
    Case{"fionread-redirected",
         "FIONREAD counts redirected bytes (nginx, Java and .NET stop reading otherwise)",
         case_fionread_redirected},
    Case{"fionread-passed",
         "FIONREAD counts bytes sent by TCP while joined (nginx, Java and .NET stop reading "
         "otherwise)",
         case_fionread_passed},
    Case{"cross-netns", "a connection between two network namespaces is redirected",
         case_cross_netns, NC_RD_CROSS_NETNS},
};

/// Loaded once for all cases: that takes longer than they do.
Result<Datapath> load(const sys::Cgroup& cgroup) {
    Tuning tuning;
    tuning.grace_ns = 30'000'000; // in which case_fionread_passed has its message pass
    Datapath datapath = NETCTL_TRY(Datapath::load(tuning));
    nc_rd_conf conf{};
    conf.abi_version = abi_version();
    conf.cgroup = cgroup.id;
    NETCTL_TRY(datapath.set_conf(conf));
    Datapath::Bank bank;
    bank.rules[0].action = NC_RD_ALLOW;
    bank.rules[0].dport_high = 65535;
    NETCTL_TRY(datapath.commit_bank(bank));
    NETCTL_TRY(datapath.attach(cgroup));
    return datapath;
}

Result<> never_pass(const Datapath& datapath) {
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    conf.flags |= NC_RD_NEVER_PASS;
    return datapath.set_conf(conf);
}

/// A network of our own: the present one may lack loopback, IPv6, or room for connections.
void enter_own_network() {
    if (unshare(CLONE_NEWNET) != 0)
        return;
    (void)set_up("lo", 0); // a case that needs it says so
}

Result<> run_case(const Case& one, Datapath& datapath) {
    nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    const std::uint32_t flags = std::exchange(conf.flags, conf.flags | one.flags);
    NETCTL_TRY(datapath.set_conf(conf));
    Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
    Bench bench(datapath, joiner);
    Result<> outcome = one.run(bench);
    conf = NETCTL_TRY(datapath.conf());
    conf.flags = flags;
    NETCTL_TRY(datapath.set_conf(conf));
    return outcome;
}

} // namespace

std::vector<std::string> selftest_names() {
    std::vector<std::string> names;
    for (const Case& one : cases)
        names.emplace_back(one.name);
    return names;
}

Result<std::vector<SelftestCase>> run_selftest(std::uint32_t flags) {
    const auto asked = [flags](const Case& one) { return (one.flags & ~flags) == 0; };
    const std::string output = NETCTL_TRY(run_in_cgroup(
        [&](const sys::Cgroup& cgroup, int fd) {
            const auto say = [fd](const char* name, char mark, std::string detail) {
                for (char& c : detail)
                    if (c == '\n' || c == '\t')
                        c = ' ';
                const std::string line = fmt::format("{}\t{}\t{}\n", name, mark, detail);
                if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
                    _exit(1);
            };
            enter_own_network();
            bool miscounts = false, all_miscounted = false;
            Result<Datapath> datapath = load(cgroup);
            for (const Case& one : cases) {
                if (!asked(one))
                    continue;
                const Result<> outcome =
                    datapath ? run_case(one, *datapath) : Result<>(datapath.error());
                say(one.name, outcome ? '1' : '0', outcome ? "" : outcome.error().what);
                miscounts = miscounts || (!outcome && one.run == case_fionread_passed);
                all_miscounted =
                    all_miscounted || (!outcome && one.run == case_fionread_redirected);
            }
            const auto again = [&](char mark, const char* detail) {
                for (const Case& one : cases)
                    if ((one.run == case_fionread_passed || one.run == case_fionread_redirected) &&
                        run_case(one, *datapath))
                        say(one.name, mark, detail);
            };
            if (!datapath || !(miscounts || all_miscounted))
                return;
            if (all_miscounted) {
                if (datapath->mend_fionread())
                    again('m', "mended: programs behind ioctl() count them");
            } else if (never_pass(*datapath)) { // the same, where no message passes while joined
                again('a', "avoided: a connection that would need it leaves instead");
            }
        },
        300000)); // under software emulation loading takes most of a minute
    std::vector<SelftestCase> results;
    for (const Case& one : cases)
        if (asked(one))
            results.push_back({one.name, one.about, false, false, false, "it did not finish"});
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t first = line.find('\t'), second = line.find('\t', first + 1);
        if (first == std::string::npos || second == std::string::npos)
            continue;
        for (SelftestCase& result : results)
            if (result.name == line.substr(0, first) && !result.passed) {
                result.passed = line[first + 1] == '1';
                result.avoided = line[first + 1] == 'a';
                result.mended = line[first + 1] == 'm';
                result.detail = line.substr(second + 1);
            }
    }
    return results;
}

} // namespace netctl::redirect
