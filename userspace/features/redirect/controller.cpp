// SPDX-License-Identifier: GPL-2.0-only
#include "features/redirect/controller.hpp"

#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "bpf/dir_lock.hpp"
#include "datapath/root.hpp"
#include "features/redirect/joiner.hpp"

namespace netctl::redirect {

namespace {

/// Readers of a pin directory see all of it or nothing: it is filled under this name.
const std::string staging = "redirect%2enew";
const std::string directory = "redirect";

} // namespace

bpf::PinDir redirect_dir(const datapath::Root& root) {
    return root.dir().sub(directory);
}

Result<Datapath> open_enabled(const datapath::Root& root) {
    const bpf::PinDir dir = redirect_dir(root);
    if (!dir.has("link_sockops"))
        return Error::failed("redirection is not enabled", "netctl redirect enable");
    return Datapath::open(dir);
}

namespace {

Result<> check_not_enabled(const datapath::Root& root) {
    if (!redirect_dir(root).has("link_sockops"))
        return {};
    const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(open_enabled(root)).conf());
    return Error::failed(fmt::format("redirection is enabled already, on the cgroup {}",
                                     sys::cgroup_name(conf.cgroup).value_or("(gone)")),
                         (conf.flags & NC_RD_DRAINING) != 0
                             ? "it is being disabled: netctl redirect disable"
                             : "netctl redirect disable comes first");
}

} // namespace

Result<Controller::Enabled> Controller::enable(const EnableOptions& options) {
    NETCTL_TRY(check_cases(options.force)); // what is wrong with the words comes first
    Enabled enabled;
    const sys::Cgroup cgroup = NETCTL_TRY(sys::find_cgroup(options.cgroup));
    NETCTL_TRY(check_not_enabled(NETCTL_TRY(datapath::Root::open(root_))));
    // Takes seconds, and nothing of the root: nobody waits for it.
    const Fitness fitness = NETCTL_TRY(prove_fit(options));
    enabled.notes.insert(enabled.notes.end(), fitness.notes.begin(), fitness.notes.end());
    const auto root = NETCTL_TRY(datapath::LockedRoot::acquire(root_));
    NETCTL_TRY(check_not_enabled(root));

    Datapath datapath = NETCTL_TRY(Datapath::load(fitness.tuning));
    nc_rd_conf conf{};
    conf.abi_version = NC_ABI_VERSION;
    conf.flags = fitness.flags;
    conf.next_rule_id = conf.next_to_id = 1;
    conf.cgroup = cgroup.id;
    conf.generation = 1;
    NETCTL_TRY(datapath.set_conf(conf));

    const bpf::PinDir& parent = root.dir();
    const bpf::PinDir aside = parent.sub(staging);
    NETCTL_TRY(aside.remove_all()); // of one that was killed half way
    Result<> done = datapath.attach(cgroup);
    if (done)
        done = datapath.pin(aside);
    if (done)
        done = parent.rename(staging, directory);
    if (!done) {
        (void)aside.remove_all();
        return std::move(done).error();
    }
    NETCTL_TRY(root.next_generation());
    enabled.cgroup = cgroup.name;
    return enabled;
}

Result<bool> Controller::disable(unsigned timeout_ms) {
    std::optional<Datapath> draining;
    {
        const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
        NETCTL_TRY(root.dir().sub(staging).remove_all());
        const bpf::PinDir dir = redirect_dir(root);
        if (!dir.exists())
            return false;
        if (dir.has("conf")) { // else the last disable was killed behind the draining
            draining = NETCTL_TRY(Datapath::open(dir));
            nc_rd_conf conf = NETCTL_TRY(draining->conf());
            conf.flags |= NC_RD_DRAINING;
            NETCTL_TRY(draining->set_conf(conf));
        }
    }
    // It takes as long as readers take, and meanwhile nobody has to wait for the root.
    if (draining) {
        wait_for_programs(); // nothing joins any more
        const std::size_t left = NETCTL_TRY(draining->leave_all(NC_RD_REASON_DRAINED, timeout_ms));
        if (left != 0)
            return Error::failed(
                fmt::format("{} connection{} hold{} redirected data that {} reader has not read "
                            "yet; all others are on TCP, and nothing joins any more",
                            left, left == 1 ? "" : "s", left == 1 ? "s" : "",
                            left == 1 ? "its" : "their"),
                "netctl redirect list names them; run netctl redirect disable again when they have "
                "read or are closed");
    }
    const auto root = NETCTL_TRY(datapath::LockedRoot::open(root_));
    const bpf::PinDir dir = redirect_dir(root);
    if (!dir.exists())
        return true; // somebody else has disabled it, too
    if (dir.has("conf")) {
        const nc_rd_conf conf = NETCTL_TRY(NETCTL_TRY(Datapath::open(dir)).conf());
        if ((conf.flags & NC_RD_DRAINING) == 0)
            return true; // and it was enabled again
        // The order keeps a killed disable repeatable: `conf` last but for the rest.
        NETCTL_TRY(Datapath::unpin_hooks(dir));
        for (const char* name : {"prog_join", "conf"})
            NETCTL_TRY(dir.unpin(name));
    }
    NETCTL_TRY(dir.remove_all());
    NETCTL_TRY(root.next_generation());
    return true;
}

Result<bool> Controller::joiner_runs() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    return bpf::DirLock::is_held(redirect_dir(root));
}

Result<Status> Controller::status() const {
    const auto root = NETCTL_TRY(datapath::Root::open(root_));
    Status status;
    if (!redirect_dir(root).has("link_sockops"))
        return status;
    const Datapath datapath = NETCTL_TRY(open_enabled(root));
    const nc_rd_conf conf = NETCTL_TRY(datapath.conf());
    status.enabled = true;
    status.draining = (conf.flags & NC_RD_DRAINING) != 0;
    status.allow_blocking = (conf.flags & NC_RD_ALLOW_BLOCKING) != 0;
    status.cross_netns = (conf.flags & NC_RD_CROSS_NETNS) != 0;
    status.forced = (conf.flags & NC_RD_FORCED) != 0;
    status.mends_fionread = (conf.flags & NC_RD_MENDS_FIONREAD) != 0;
    status.joiner = bpf::DirLock::is_held(redirect_dir(root));
    status.cgroup = sys::cgroup_name(conf.cgroup).value_or(fmt::format("#{}", conf.cgroup));
    status.rules = rules_in(NETCTL_TRY(datapath.read_bank<nc_rd_rule>()));
    status.to_rules = rules_in(NETCTL_TRY(datapath.read_bank<nc_rd_to>()));
    for (const nc_rd_pair& pair : NETCTL_TRY(datapath.pairs())) {
        status.joined += pair.state == NC_RD_JOINED;
        status.leaving += pair.state == NC_RD_LEAVING;
    }
    status.stats = NETCTL_TRY(datapath.stats());
    return status;
}

Result<> Controller::run(bool wait, const std::function<bool()>& stop,
                         const std::function<void()>& ready,
                         const std::function<void(const std::string&)>& tell) {
    const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
    while (!stop()) {
        std::optional<datapath::Root> root = NETCTL_TRY(datapath::Root::open(root_));
        const bpf::PinDir dir = redirect_dir(*root);
        if (!dir.has("link_sockops")) {
            root.reset();
            if (!wait)
                return Error::failed("redirection is not enabled", "netctl redirect enable");
            pause();
            continue;
        }
        auto lock = bpf::DirLock::try_acquire(dir);
        if (!lock) {
            root.reset();
            if (lock.error().code == EWOULDBLOCK && !wait)
                return Error::failed("another joiner is running for this root");
            if (lock.error().code != EWOULDBLOCK)
                return std::move(lock).error();
            pause();
            continue;
        }
        Datapath datapath = NETCTL_TRY(Datapath::open(dir));
        root.reset(); // it goes on for long
        Joiner joiner = NETCTL_TRY(Joiner::open(datapath));
        ready();
        while (!stop() && lock->still_at(dir)) {
            NETCTL_TRY(joiner.poll(200));
            if (const std::string trouble = joiner.take_trouble(); !trouble.empty())
                tell(trouble);
        }
        if (!stop() && !wait)
            return {}; // disabled: our work is done
    }
    return {};
}

} // namespace netctl::redirect
