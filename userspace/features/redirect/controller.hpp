// SPDX-License-Identifier: GPL-2.0-only
//
// Redirection of local TCP connections: enabling, disabling, rules, and what is going on.
// rules.cpp and connections.cpp hold the parts of Controller that their names say, fitness.cpp what enable
// asks of the kernel.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bpf/pin_dir.hpp"
#include "core/address.hpp"
#include "core/result.hpp"
#include "features/redirect/datapath.hpp"
#include "features/redirect/rule_text.hpp"
#include "netctl/abi/redirect.h"

namespace netctl::redirect {

struct EnableOptions {
    std::string cgroup; ///< empty: the root of cgroup v2
    bool allow_blocking = false;
    bool cross_netns = false;       ///< ends may be in different network namespaces
    std::vector<std::string> force; ///< cases of the self-test that may fail
};

struct Status {
    bool enabled = false;
    bool unfinished =
        false; ///< not enabled: hooks that do nothing are left of an interrupted command
    bool draining = false;
    bool allow_blocking = false;
    bool cross_netns = false;
    bool forced = false;
    bool mends_fionread = false; ///< corrects what ioctl() answers
    bool joiner = false;         ///< a joiner is running
    bool live = true;            ///< its cgroup is there; else nothing is redirected or rewritten
    std::string cgroup;          ///< its name, or `#ID` if it is gone
    std::size_t rules = 0;
    std::size_t to_rules = 0;
    std::size_t to_asked = 0; ///< targets of theirs that are asked whether they are up
    std::size_t to_down = 0;  ///< and said no
    std::size_t joined = 0;   ///< connections in the map now
    std::size_t leaving = 0;
    nc_rd_stats stats{}; ///< those of joined connections included
    nc_rd_to_stats to_stats{};
};

/// A connection, seen from the end that connected or accepted first in `local`.
struct Connection {
    std::string state; ///< joined, redirecting, leaving, tcp
    std::string reason;
    bool cross_netns = false; ///< the remote end is in another network namespace
    Family family = Family::ipv4;
    Address local, remote;
    std::uint16_t local_port = 0, remote_port = 0;
    struct End {
        std::uint32_t pid = 0; ///< 0: not known
        std::string name;
        std::uint64_t redirected_messages = 0, redirected_bytes = 0;
        std::uint64_t passed_messages = 0, passed_bytes = 0;
    };
    std::array<End, 2> ends; ///< [0] has the local address
};

/// What the self-test of this kernel says about how the programs have to be loaded.
struct Fitness {
    Tuning tuning;
    std::uint32_t flags = 0; ///< nc_rd_flags, for nc_rd_conf
    std::vector<std::string> notes;
};
/// Whether the self-test has cases of these names.
Result<> check_cases(const std::vector<std::string>& force);
/// Runs the self-test, unless all of it is forced. An error if this kernel would break applications.
Result<Fitness> prove_fit(const EnableOptions& options);

class Controller {
  public:
    explicit Controller(RootOptions root) : root_(std::move(root)) {}

    struct Enabled {
        std::string cgroup;
        std::vector<std::string> notes;
    };
    /// Proves the kernel fit, loads, attaches and pins. What fails leaves nothing behind. Where it is
    /// enabled on a cgroup that is gone, it goes to the one of the options, with its rules and settings.
    Result<Enabled> enable(const EnableOptions& options);
    /// Takes every connection out, losing no byte, and removes all that was pinned. False if it was
    /// not enabled. If readers do not read, all stays pinned and the error tells how many.
    Result<bool> disable(unsigned timeout_ms);
    Result<Status> status() const;
    Result<std::vector<Connection>> list() const;

    /// Runs the joiner, and asks targets whether they are up, until `stop()` says so or redirection is disabled. With `wait` it waits for
    /// redirection to be enabled, also again. `ready` is called once it listens, `tell` with what
    /// keeps it from joining and does not end it, and with targets that go down or come back.
    Result<> run(bool wait, const std::function<bool()>& stop, const std::function<void()>& ready,
                 const std::function<void(const std::string&)>& tell);
    /// Whether a joiner holds its lock.
    Result<bool> joiner_runs() const;

    /// Rules in order. Those that another tool wrote have a text made of the kernel's numbers.
    struct ListedRule {
        std::uint32_t id = 0;
        std::string text;
    };
    Result<std::vector<ListedRule>> rules() const;
    /// Appends or, with `first`, puts a rule in front; returns its id. A rule in front, as any
    /// change but an appended rule, makes all joined connections leave: they were judged by others.
    Result<std::uint32_t> add_rule(const Rule& rule, bool first);
    Result<> delete_rule(std::uint32_t id);
    Result<> flush_rules();
    /// Puts rules in the place of all of them, in one step; those whose text was there keep their ids.
    Result<> replace_rules(const std::vector<Rule>& rules);

    /// Where connect() goes instead; the first that matches decides.
    Result<std::vector<ListedRule>> to_rules() const;
    /// The same with what went to each target. Those that another tool wrote may have none.
    struct ListedTo {
        ListedRule rule;
        struct Counted {
            Target target;
            std::uint64_t connections = 0;
            std::uint64_t datagrams = 0;           ///< of sockets that are not connected
            std::optional<nc_rd_to_health> health; ///< if it is asked whether it is up
        };
        std::vector<Counted> targets;
        nc_rd_to_failed failed{}; ///< what came when all of them were down
    };
    Result<std::vector<ListedTo>> to_list() const;
    Result<std::uint32_t> add_to(const Rule& rule);
    Result<> delete_to(std::uint32_t id);
    Result<> replace_to(const std::vector<Rule>& rules);

  private:
    // For the list of R, nc_rd_rule or nc_rd_to.
    template <class R> Result<std::vector<ListedRule>> list_of() const;
    template <class R>
    Result<std::uint32_t> add_to_list(std::vector<R> entries, const std::string& text, bool first);
    Result<> check_learnable(const std::vector<Rule>& rules) const;
    template <class R>
    Result<> replace_list(const std::vector<std::pair<std::vector<R>, std::string>>& wanted);
    template <class R> Result<> delete_from_list(std::uint32_t id, const char* where);
    RootOptions root_;
};

} // namespace netctl::redirect
