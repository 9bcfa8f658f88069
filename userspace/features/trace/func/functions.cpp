// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/func/functions.hpp"

#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "bpf/per_cpu_sum.hpp"
#include "bpf/probe.hpp"
#include "bpf/uprobe.hpp"
#include "core/log.hpp"
#include "functions.skel.h"

namespace netctl::trace::func {

namespace {

using Skeleton = bpf::Skeleton<::functions>;

Result<> set_constants(const bpf::Object& object, const Request& request) {
    const std::uint32_t mode = request.mode;
    NETCTL_TRY(object.set_constant("mode", std::span(&mode, 1)));
    NETCTL_TRY(object.set_constant("group_by", std::span(&request.by, 1)));
    return object.set_rodata("slower_ns", std::as_bytes(std::span(&request.slower_ns, 1)));
}

/// Attaches at functions, returns first: so each call whose beginning is seen has its end.
class Attacher {
  public:
    Attacher(const bpf::Object& object, const Request& request, Instrument& instrument)
        : object_(object), request_(&request), instrument_(&instrument) {}

    Result<> user(int file, const Place& place, std::uint32_t cookie) {
        if (!user_enter_)
            user_enter_ = NETCTL_TRY(object_.program("user_enter"));
        const std::uint32_t pid = request_->selection.pid;
        if (request_->mode != NC_FUNC_CALLS) {
            if (!user_leave_) {
                user_leave_ = NETCTL_TRY(object_.program("user_leave"));
                NETCTL_TRY(bpf::check_return_probes(*user_leave_));
            }
            instrument_->keep(NETCTL_TRY(bpf::attach_uprobe(
                *user_leave_, file, place.offset, bpf::ProbeAt::function_return, cookie, pid)));
        }
        instrument_->keep(NETCTL_TRY(bpf::attach_uprobe(*user_enter_, file, place.offset,
                                                        bpf::ProbeAt::entry, cookie, pid)));
        return {};
    }

    /// Ends first, as returns.
    Result<> marks(int file, const Place& place, std::uint32_t cookie) {
        for (const bool done : {true, false})
            for (const Mark& mark : place.marks) {
                if (mark.done != done)
                    continue;
                const bpf::Program program =
                    NETCTL_TRY(object_.program(done ? "mark_done" : "mark_begin"));
                instrument_->keep(NETCTL_TRY(
                    bpf::attach_uprobe(program, file, mark.offset, bpf::ProbeAt::entry, cookie,
                                       request_->selection.pid, mark.semaphore)));
            }
        return {};
    }

    Result<> kernel(const Place& place, std::uint32_t cookie) {
        auto typed = typed_refused_ ? Result<>(Error(*typed_refused_)) : by_type(place, cookie);
        if (typed) {
            typed_ = true;
            return {};
        }
        const Text why = typed.error().what;
        if (typed.error().code == EPERM && !typed_refused_)
            typed_refused_ = std::move(typed).error();
        debug(Text::format("{}: {}", place.name, why));
        auto probed = by_probe(place, cookie);
        if (probed) {
            probed_ = true;
            return {};
        }
        const Error& error = probed.error();
        if (error.kind == ErrorKind::unsupported || typed_refused_)
            return Error::unsupported(
                Text::format("this kernel lets no program run at its function {}: fentry: {}; "
                             "kprobe: {}",
                             place.name, why, error.what),
                "`netctl doctor` tells what it can");
        return Error::failed(Text::format("cannot watch the kernel's function {}: fentry: {}; "
                                          "kprobe: {}",
                                          place.name, why, error.what),
                             "some functions may not be watched");
    }

    std::string way() const {
        return typed_ && probed_ ? "fentry and kprobe"
               : typed_          ? "fentry"
               : probed_         ? "kprobe"
                                 : "";
    }

  private:
    Result<> by_type(const Place& place, std::uint32_t cookie) {
        if (!bpf::kernel_has_function(place.symbol))
            return Error::failed("the kernel's types do not have it");
        const auto skeleton = NETCTL_TRY(Skeleton::open());
        const bpf::Object object = skeleton.object();
        std::vector<std::string> programs{"kernel_enter"};
        if (request_->mode != NC_FUNC_CALLS)
            programs.insert(programs.begin(), "kernel_leave");
        NETCTL_TRY(object.load_only(programs));
        NETCTL_TRY(set_constants(object, *request_));
        NETCTL_TRY(select_before_load(object, request_->selection));
        for (const char* map : {"threads", "groups", "counters", "func_counters", "events"})
            NETCTL_TRY(object.reuse(map, NETCTL_TRY(object_.map(map))));
        for (const std::string& program : programs)
            NETCTL_TRY(object.set_target(program, place.symbol));
        NETCTL_TRY(object.load());
        std::vector<bpf::Link> links;
        for (const std::string& program : programs)
            links.push_back(NETCTL_TRY(object.attach_to_target(program, cookie)));
        for (bpf::Link& link : links)
            instrument_->keep(std::move(link));
        for (const std::string& program : programs)
            instrument_->keep(NETCTL_TRY(object.program(program)));
        return {};
    }

    Result<> by_probe(const Place& place, std::uint32_t cookie) {
        std::vector<bpf::Link> links;
        if (request_->mode != NC_FUNC_CALLS)
            links.push_back(NETCTL_TRY(
                bpf::attach_kprobe(NETCTL_TRY(object_.program("probe_leave")), place.symbol,
                                   bpf::ProbeAt::function_return, cookie)));
        links.push_back(NETCTL_TRY(bpf::attach_kprobe(NETCTL_TRY(object_.program("probe_enter")),
                                                      place.symbol, bpf::ProbeAt::entry, cookie)));
        for (bpf::Link& link : links)
            instrument_->keep(std::move(link));
        return {};
    }

    bpf::Object object_;
    const Request* request_;
    Instrument* instrument_;
    std::optional<bpf::Program> user_enter_, user_leave_;
    std::optional<Error> typed_refused_; ///< what this kernel says to all of them
    bool typed_ = false;
    bool probed_ = false;
};

} // namespace

void Values::add(const Values& other) {
    if (calls == 0) {
        pid = other.pid;
        comm = other.comm;
    }
    calls += other.calls;
    sum_ns += other.sum_ns;
    histogram.add(other.histogram);
}

void Values::subtract(const Values& earlier) {
    calls -= earlier.calls;
    sum_ns -= earlier.sum_ns;
    histogram.subtract(earlier.histogram);
}

bool GroupOrder::operator()(const nc_func_group& a, const nc_func_group& b) const {
    return std::memcmp(&a, &b, sizeof a) < 0;
}

Result<FunctionTrace> FunctionTrace::start(const Targets& targets, const Request& wanted,
                                           OnCall on_call) {
    bpf::capture_libbpf_messages();
    Request request = wanted;
    // A selected container is found by its cgroup.
    if (!request.selection.container.empty())
        request.by |= NC_FUNC_BY_CGROUP;
    const auto skeleton = NETCTL_TRY(Skeleton::open());
    const bpf::Object object = skeleton.object();
    NETCTL_TRY(set_constants(object, request));
    InstrumentPlan plan;
    plan.ring_bytes = request.ring_bytes;
    plan.probes = {"user_enter", "mark_begin", "probe_enter"};
    if (request.mode != NC_FUNC_CALLS)
        plan.probes.insert(plan.probes.end(), {"user_leave", "mark_done", "probe_leave"});
    FunctionTrace trace(NETCTL_TRY(
        Instrument::start(object, request.selection, plan,
                          [on_call = std::move(on_call)](std::span<const std::byte> bytes) {
                              nc_func_call call;
                              if (bytes.size() < sizeof call)
                                  return;
                              std::memcpy(&call, bytes.data(), sizeof call);
                              on_call(call);
                          })));
    trace.groups_ = NETCTL_TRY(object.map("groups"));
    trace.func_counters_ = NETCTL_TRY(object.map("func_counters"));
    Attacher attacher(object, request, trace.instrument_);
    for (std::uint32_t i = 0; i < targets.places.size(); ++i) {
        const Place& place = targets.places[i];
        const int file = place.file == Place::kernel ? -1 : targets.files[place.file].file.get();
        auto attached = place.file == Place::kernel ? attacher.kernel(place, i)
                        : place.marks.empty()       ? attacher.user(file, place, i)
                                                    : attacher.marks(file, place, i);
        if (!attached)
            return std::move(attached).error().within(Text(targets.label(place)));
    }
    trace.kernel_way_ = attacher.way();
    return trace;
}

Result<Groups> FunctionTrace::read() const {
    Groups groups;
    const bpf::MapKeys keys = NETCTL_TRY(groups_.keys());
    for (const std::uint8_t* bytes : keys) {
        nc_func_group key;
        std::memcpy(&key, bytes, sizeof key);
        nc_func_values values{};
        if (!NETCTL_TRY(groups_.lookup(&key, &values)))
            continue;
        Values& one = groups[key];
        one = {values.calls,
               values.sum_ns,
               values.pid,
               std::string(values.comm, strnlen(values.comm, sizeof values.comm)),
               {}};
        one.histogram.add(values.slots);
    }
    return groups;
}

Result<Counters> FunctionTrace::counters() const {
    Counters counters;
    counters.instrument = NETCTL_TRY(instrument_.counters());
    counters.calls = NETCTL_TRY(bpf::sum_per_cpu<nc_func_counters>(func_counters_));
    return counters;
}

} // namespace netctl::trace::func
