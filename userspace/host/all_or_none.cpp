// SPDX-License-Identifier: GPL-2.0-only
#include "host/all_or_none.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <set>

#include <fmt/format.h>

#include "core/fd.hpp"
#include "host/element_text.hpp"
#include "sys/netns.hpp"

namespace netctl::host {

namespace {

/// The network namespace that we came from, to go back there for a while.
class Home {
  public:
    static Result<Home> here() {
        Home home;
        home.fd_ = Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
        if (!home.fd_)
            return Error::system(errno, "cannot open the network namespace");
        home.inode_ = NETCTL_TRY(sys::current_netns_inode());
        return home;
    }
    Result<sys::NetnsGuard> enter() const {
        const bool there = NETCTL_TRY(sys::current_netns_inode()) == inode_;
        return sys::NetnsGuard::enter(there ? "" : fmt::format("/proc/self/fd/{}", fd_.get()));
    }

  private:
    Fd fd_;
    std::uint64_t inode_ = 0;
};

/// What comes into a set, as a step of its own; nothing of it goes. Empty if nothing comes.
Step coming(const Step& step) {
    const std::vector<std::string> lines = element_lines(step.set_from->elements);
    const std::set<std::string> had(lines.begin(), lines.end());
    Step grow = step;
    grow.only_adds = true;
    std::erase_if(grow.set_to->elements, [&](const datapath::ListedElement& one) {
        return one.absent || had.contains(element_lines({one}).front());
    });
    std::erase_if(grow.set_to->names, [&](const std::string& name) {
        return std::ranges::count(step.set_from->names, name) != 0;
    });
    return grow;
}

class Carrier {
  public:
    Carrier(const RootOptions& root, bool dared, HowFar how_far, Home home)
        : root_(root), dared_(dared), how_far_(how_far), home_(std::move(home)) {}

    Outcome all(const std::vector<Step>& steps) {
        sort(steps);
        if (!(take(fresh_) && take_filters(filters_.size()) && take(behind_)) || error_)
            undo();
        if (how_far_ == HowFar::loading && rehearsed_)
            outcome_.error.reset();
        return std::move(outcome_);
    }

  private:
    void sort(const std::vector<Step>& steps) {
        std::vector<Step> shrinking, going;
        for (const Step& step : steps) {
            if (step.set_to && !step.set_from) {
                fresh_.push_back(step);
            } else if (step.set_to) {
                Step grow = coming(step);
                const std::size_t had = step.set_from->elements.size();
                const std::size_t come = grow.set_to->elements.size() + grow.set_to->names.size();
                const bool fits = had + come <= step.set_from->size.value_or(0);
                if (come != 0 && !fits)
                    between_.push_back(step);
                else if (come != 0)
                    between_.push_back(std::move(grow));
                if (come == 0 || fits)
                    shrinking.push_back(step);
            } else if (step.policy_to) {
                between_.push_back(step);
            } else if (step.filter_to) {
                filters_.push_back(step);
            } else if (step.redirect_to) {
                behind_.push_back(step);
            } else {
                going.push_back(step);
            }
        }
        std::ranges::move(shrinking, std::back_inserter(behind_));
        std::ranges::move(going, std::back_inserter(behind_));
    }

    bool take(const Step& step, const Ready& ready = {}) {
        auto told = carry_out(step, root_, dared_, ready);
        if (!told) {
            if (!error_) { // else it is that of a step which this one waited for
                error_ = true;
                outcome_.error = std::move(told).error().within(step.title);
            }
            return false;
        }
        done_.push_back(step);
        outcome_.notes.insert(outcome_.notes.end(), told->begin(), told->end());
        return true;
    }

    bool take(const std::vector<Step>& steps) {
        return std::ranges::all_of(steps, [&](const Step& step) { return take(step); });
    }

    /// The first `count` filters: each is loaded, and waits until all before it are in force.
    bool take_filters(std::size_t count) {
        if (count == 0)
            return all_is_loaded();
        return take(filters_[count - 1], [this, count]() -> Result<> {
            const auto guard = NETCTL_TRY(home_.enter()); // from that of the filter which waits
            if (take_filters(count - 1))
                return {};
            return Error::failed("another step failed");
        });
    }

    bool all_is_loaded() {
        if (how_far_ == HowFar::whole)
            return take(between_);
        error_ = rehearsed_ = true;
        return false;
    }

    void undo() {
        for (auto step = done_.rbegin(); step != done_.rend(); ++step)
            if (const auto undone = carry_out(step->reversed(), root_, true, {}); !undone)
                outcome_.left.push_back(
                    fmt::format("{}: {}", step->title, undone.error().what.string()));
    }

    const RootOptions& root_;
    bool dared_;
    HowFar how_far_;
    Home home_;
    std::vector<Step> fresh_, between_, filters_, behind_;
    std::vector<Step> done_;
    bool error_ = false, rehearsed_ = false;
    Outcome outcome_;
};

} // namespace

Outcome carry_out_all(const std::vector<Step>& steps, const RootOptions& root, bool dared,
                      HowFar how_far) {
    auto home = Home::here();
    if (!home)
        return {.notes = {}, .error = std::move(home).error(), .left = {}};
    return Carrier(root, dared, how_far, std::move(*home)).all(steps);
}

} // namespace netctl::host
