// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/fd.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "fleet/agent.hpp"
#include "fleet/fleet.hpp"
#include "fleet/notify.hpp"
#include "sys/clock.hpp"
#include "sys/replace_file.hpp"
#include "sys/stop.hpp"
#include "sys/text_file.hpp"

namespace netctl::fleet {

namespace {

constexpr unsigned longest_wait_ms = 5000;

std::string own_name() {
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
}

Moment moment() {
    return {static_cast<std::int64_t>(sys::now_ms()), std::time(nullptr)};
}

/// The folder for what a host remembers, which one process at a time has.
class StateFolder {
  public:
    static Result<StateFolder> open(const std::string& path) {
        std::error_code error;
        std::filesystem::create_directories(path, error);
        if (error)
            return Error::system(error.value(), Text::format("cannot make the folder {}", path));
        StateFolder folder;
        folder.path_ = path;
        folder.lock_ =
            Fd(::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
        if (!folder.lock_)
            return Error::system(errno, Text::format("cannot write in {}", path));
        if (flock(folder.lock_.get(), LOCK_EX | LOCK_NB) != 0)
            return Error::failed(Text::format("another netctl-fleet works in {}", path),
                                 "each host has a folder of its own: --state DIR");
        return folder;
    }
    const std::string& path() const { return path_; }

    Result<AgentState> load() const {
        const std::string file = path_ + "/state.json";
        if (access(file.c_str(), F_OK) != 0 && errno == ENOENT)
            return AgentState{};
        auto state = parse_agent_state(NETCTL_TRY(sys::read_text(file)));
        if (!state)
            return std::move(state).error().within(file);
        return state;
    }
    Result<> save(const AgentState& state) const {
        return sys::replace_file(path_ + "/state.json", agent_state_text(state), 0600);
    }

  private:
    std::string path_;
    Fd lock_;
};

/// Tells what has become of a release when that changes.
class Teller {
  public:
    void tell_of(const Agent& agent, const Output& out) {
        const std::uint64_t release = agent.state().release;
        if (agent.state_name() == state_ && agent.error() == error_ && release == release_)
            return;
        state_ = agent.state_name();
        error_ = agent.error();
        release_ = release;
        Text text = Text::format("{}, release {} in force", state_,
                                 release_ != 0 ? fmt::format("{}", release_) : "-");
        if (!error_.empty())
            text += Text::format(": {}", error_);
        out.line({{"time",
                   sys::iso_time(static_cast<std::uint64_t>(std::time(nullptr)) * 1'000'000'000)},
                  {"state", state_},
                  {"release", release_ != 0 ? Json(release_) : Json()},
                  {"error", error_.empty() ? Json() : Json(error_)}},
                 text);
        notify_systemd("STATUS=" + text.string());
    }

  private:
    std::string state_, error_;
    std::uint64_t release_ = 0;
};

bool is_good(const std::string& state) {
    return state == "in-force" || state == "waiting" || state == "empty";
}

Result<int> run(const Arguments& arguments, Context& context) {
    if (!context.netns.empty())
        return Error::usage("`run` works on the network that it is started in",
                            "nsenter --net=/run/netns/NAME netctl-fleet run …");
    if (!arguments.has("fleet"))
        return Error::usage("--fleet is missing", "the fleet that this host belongs to");
    AgentOptions options;
    options.fleet = arguments.get("fleet");
    options.host = arguments.get("name", own_name());
    if (!is_host_name(options.host))
        return Error::usage(Text::format("'{}' is no name of a host", options.host),
                            "--name: letters, digits, dots and dashes");
    options.labels = NETCTL_TRY(parse_labels(arguments.get("labels")));
    options.keys = NETCTL_TRY(read_public_keys(arguments.get("keys", default_keys)));
    options.threshold = static_cast<unsigned>(NETCTL_TRY(arguments.number("threshold", 1, 1, 16)));
    if (options.threshold > options.keys.size())
        return Error::usage(Text::format("{} signatures are wanted, and there are {} keys",
                                         options.threshold, options.keys.size()));
    options.heartbeat =
        static_cast<std::int64_t>(NETCTL_TRY(arguments.number("heartbeat", 60, 1, 3600)));
    options.spread_ms = arguments.has("etcd") ? 1000 : 0;
    const StateFolder folder =
        NETCTL_TRY(StateFolder::open(arguments.get("state", "/var/lib/netctl/fleet")));
    const std::unique_ptr<Source> opened = NETCTL_TRY(open_source(arguments));
    Source& source = *opened;
    NetctlOptions netctl;
    netctl.program = arguments.get("netctl", "netctl");
    netctl.options = {"--root", context.root.path, "--lock-timeout",
                      fmt::format("{}", context.root.lock_timeout.count())};
    netctl.folder = folder.path();
    netctl.saved = arguments.get("save");
    NetctlApplier applier(std::move(netctl));
    Agent agent(std::move(options), NETCTL_TRY(folder.load()), source, applier,
                [&](const AgentState& state) { return folder.save(state); });

    sys::catch_stop_signals();
    const unsigned watchdog = watchdog_ms();
    Teller teller;
    agent.begin();
    for (bool first = true; !sys::stop_requested(); first = false) {
        const unsigned wanted = agent.step(moment());
        teller.tell_of(agent, context.out);
        if (first)
            notify_systemd("READY=1");
        notify_systemd("WATCHDOG=1");
        const bool retries = agent.retries();
        if (arguments.has("once") && !agent.soaking() && !retries)
            return is_good(agent.state_name()) ? 0 : 1;
        // In pieces: a signal that comes just before a wait does not end it, and systemd wants to hear of us.
        const unsigned most = watchdog != 0 ? std::min(watchdog, longest_wait_ms) : longest_wait_ms;
        for (unsigned left = wanted; left > 0 && !sys::stop_requested();) {
            const unsigned piece = std::min(left, most);
            if (source.wait(piece))
                break;
            left -= piece;
            notify_systemd("WATCHDOG=1");
        }
    }
    notify_systemd("STOPPING=1");
    agent.end();
    teller.tell_of(agent, context.out);
    return 0;
}

} // namespace

Command run_command_of_hosts() {
    std::vector<Option> options = source_options();
    const std::vector<Option> own{
        {"name", "HOST", "what this host is called (default: its host name)", {}},
        {"labels", "LIST", "KEY=VALUE,… beside those that the inventory gives it", {}},
        keys_option(),
        threshold_option(),
        {"state", "DIR", "what is remembered (default: /var/lib/netctl/fleet)", {}},
        {"heartbeat", "SECONDS", "how often it reports at least (default: 60)", {}},
        {"netctl", "FILE", "the program netctl (default: that of PATH)", {}},
        {"save", "FILE", "run `netctl save` to this file behind each release", {}},
        {"once", "", "end as soon as there is nothing more to do", {}}};
    options.insert(options.end(), own.begin(), own.end());
    return {
        .name = "run",
        .summary = "follow the fleet's releases on this host",
        .description = "Applies each release that is signed, newer than all before, and of this "
                       "host's turn, by `netctl apply --confirm`; tries its probes; confirms, or "
                       "goes back.",
        .options = std::move(options),
        .run = run,
    };
}

} // namespace netctl::fleet
